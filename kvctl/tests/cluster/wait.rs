//! Waiting for a condition, always with a bound.

use std::time::Duration;

use trefoil_world::clock;

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// What `probe` finds.
///
/// # Panics
/// When it finds nothing within `bound`.
pub async fn until<T>(what: &str, bound: Duration, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match within(bound, probe).await {
        Some(found) => found,
        None => panic!("expected within {bound:?}: {what}"),
    }
}

/// What `probe` finds within `bound`, if anything.
pub async fn within<T>(bound: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = clock::now() + bound;
    loop {
        if let Some(found) = probe().await {
            return Some(found);
        }
        if clock::now() >= deadline {
            return None;
        }
        clock::sleep(POLL).await;
    }
}
