use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// What a server of `store` sends for these bytes.
async fn answer(store: &Path, request: &[u8]) -> String {
    let server = Server::listen("127.0.0.1:0", store).await.expect("a port is free");
    let address = server.listener.address().to_string();
    let running = task::spawn(server.run());
    let mut stream = net::dial(&address).await.expect("it listens");
    stream.write_all(request).await.expect("it reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it answers");
    running.abort();
    String::from_utf8(bytes).expect("text")
}

async fn get(store: &Path, target: &str) -> String {
    answer(store, format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn files_and_folders_of_the_store_are_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("a run");
    fs::create_dir_all(run.join("n1")).expect("made");
    fs::write(run.join("n1.1.log"), "ready <b>\n").expect("written");
    fs::write(run.join("report.html"), "<p>fine</p>").expect("written");
    symlink(run.join("n1.1.log"), run.join("link.log")).expect("linked");
    let cases = [
        ("/", "200 OK", "text/html; charset=utf-8", "./a%20run/"),
        ("/a%20run", "308 Permanent Redirect", "text/plain; charset=utf-8", "Location: ./a%20run/\r\n"),
        ("/a%20run/", "200 OK", "text/html; charset=utf-8", "<a href=\"./n1.1.log\">n1.1.log</a>"),
        ("/a%20run/n1.1.log", "200 OK", "text/plain; charset=utf-8", "\r\n\r\nready <b>\n"),
        ("/a%20run/link.log", "200 OK", "text/plain; charset=utf-8", "\r\n\r\nready <b>\n"),
        ("/a%20run/report.html?a=b", "200 OK", "text/html; charset=utf-8", "Content-Length: 11\r\n"),
        ("/a%20run/report.html/", "404 Not Found", "text/plain; charset=utf-8", ""),
        ("/nothing", "404 Not Found", "text/plain; charset=utf-8", ""),
    ];
    for (target, status, content, words) in cases {
        let answer = get(folder.path(), target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\nContent-Type: {content}\r\n")), "{target}: {answer}");
        assert!(answer.contains(words) && answer.contains("default-src 'none'"), "{target}: {answer}");
    }
    let head = answer(folder.path(), b"HEAD /a%20run/n1.1.log HTTP/1.0\r\n\r\n").await;
    assert!(head.contains("Content-Length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn nothing_outside_of_the_store_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, secret) = (folder.path().join("store"), folder.path().join("secret.txt"));
    fs::create_dir(&store).expect("made");
    fs::create_dir(folder.path().join("store-beside")).expect("made");
    fs::write(&secret, "secret").expect("written");
    fs::write(folder.path().join("store-beside/secret.txt"), "secret").expect("written");
    symlink(&secret, store.join("file.txt")).expect("linked");
    symlink(folder.path(), store.join("up")).expect("linked");
    symlink(folder.path().join("store-beside"), store.join("beside")).expect("linked");
    let targets = [
        "/file.txt",
        "/up/secret.txt",
        "/up/",
        "/beside/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//etc/passwd",
        "/store/../../secret.txt",
    ];
    for target in targets {
        let answer = get(&store, target).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("secret"), "{target}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: [(Vec<u8>, &str); 4] = [
        (b"\r\n\r\n".to_vec(), "400"),
        (b"DELETE / HTTP/1.1\r\n\r\n".to_vec(), "405"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(), "421"),
        (vec![b'a'; HEAD_BYTES_MAX], "400"),
    ];
    for (request, status) in cases {
        let answer = answer(folder.path(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let missing = Server::listen("127.0.0.1:0", &folder.path().join("nothing")).await;
    assert!(missing.is_err());
}
