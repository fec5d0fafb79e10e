//! The anomalies, by their names.

use std::fmt;

use super::cycle::{Class, Order, Shape};

/// What no strictly serializable history has. Ordered as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Anomaly {
    /// A read has what nobody appended.
    Unwritten,
    /// A read has a value twice.
    DuplicateElements,
    /// A read has what a failed transaction appended.
    G1a,
    /// A read ends amid what another transaction appended.
    G1b,
    /// A read has a later append of a transaction without its earlier one, or in another order.
    TornAppend,
    /// A transaction does not see its own appends, or does not read the same twice.
    Internal,
    /// Of two reads neither begins with the other.
    IncompatibleOrder,
    /// Two transactions have read the same version of a list and then appended to it.
    LostUpdate,
    Cycle(Class),
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Anomaly::Unwritten => f.write_str("unwritten"),
            Anomaly::DuplicateElements => f.write_str("duplicate-elements"),
            Anomaly::G1a => f.write_str("G1a"),
            Anomaly::G1b => f.write_str("G1b"),
            Anomaly::TornAppend => f.write_str("torn-append"),
            Anomaly::Internal => f.write_str("internal"),
            Anomaly::IncompatibleOrder => f.write_str("incompatible-order"),
            Anomaly::LostUpdate => f.write_str("lost-update"),
            Anomaly::Cycle(class) => fmt::Display::fmt(class, f),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::G0 => "G0",
            Shape::G1c => "G1c",
            Shape::GSingle => "G-single",
            Shape::GNonadjacent => "G-nonadjacent",
            Shape::G2Item => "G2-item",
        })?;
        f.write_str(match self.order {
            Order::Serial => "",
            Order::Process => "-process",
            Order::Realtime => "-realtime",
        })
    }
}
