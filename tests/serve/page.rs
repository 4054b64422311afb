//! The status page in a real browser: headless Chromium, spoken to over its DevTools protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};

use super::shared::eventually;
use super::{DIGIT, Running, ask, digit, status};

/// A page of a browser.
struct Page {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// Exceptions, and what the browser did not allow.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Page {
    /// None, with a line, where there is no Chromium.
    fn open(url: &str) -> Option<Page> {
        let has = |name: &&str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(has) else {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "chromium must be installed where CI is set");
            println!("SKIP the status page in a browser: there is no chromium (apt-get install chromium)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The browser reads calls from 3 and writes answers to 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 1>&2", chromium, "--headless", "--no-sandbox", "--disable-gpu"]);
        command.args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut page = Page { process, input, output, session: None, calls: 0, complaints: Vec::new(), _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = page.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        page.session = attached["sessionId"].as_str().map(String::from);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            page.call(domain, json!({}));
        }
        page.call("Page.navigate", json!({ "url": url }));
        Some(page)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{call}\0").as_bytes()).unwrap();
        loop {
            let mut text = Vec::new();
            self.output.read_until(0, &mut text).unwrap();
            let message: Value = serde_json::from_slice(text.strip_suffix(b"\0").expect("the browser ended")).unwrap();
            let entry = &message["params"]["entry"];
            if message["method"] == "Runtime.exceptionThrown" || (entry.is_object() && entry["source"] != "network") {
                self.complaints.push(message["params"].to_string());
            }
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn value(&mut self, expression: &str) -> Value {
        let done = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        done["result"]["value"].clone()
    }

    fn text(&mut self, id: &str) -> String {
        self.value(&format!("document.getElementById({id:?})?.textContent")).as_str().unwrap_or_default().to_string()
    }

    fn shows(&mut self, id: &str, what: &str) {
        eventually(&format!("#{id} shows {what:?}"), || self.text(id).contains(what));
    }

    /// Where `HALFBYTE_SCREENSHOTS` names a folder, what the page looks like.
    fn picture(&mut self, name: &str) {
        let Ok(folder) = std::env::var("HALFBYTE_SCREENSHOTS") else { return };
        let taken = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let png = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(name), png).unwrap();
    }

    fn look(&mut self, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        self.call("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_status_page_is_live_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "team secret\n").unwrap();
    let options = ["--api-key-file", keys.to_str().unwrap(), "--cache", "16MiB", "--tenant-rate", "1000", "--target-p99", "10s"];
    let server = Running::start(Path::new("models"), &options);
    let http = server.address("http");
    let reply = ask(&http, "GET /status", b"");
    assert!(
        status(&reply) == 200 && reply.contains("content-security-policy: default-src 'none'; script-src 'sha256-"),
        "{reply}"
    );
    let Some(mut page) = Page::open(&format!("http://{http}/")) else { return };
    let digits = |seed: usize| super::shared::digits(1 + seed % 3, seed);
    let send = |body: &[u8]| assert_eq!(status(&ask(&http, &format!("{DIGIT}\r\nauthorization: Bearer secret"), body)), 200);

    page.shows("state", "a key is needed");
    let enter =
        |key: &str| format!("document.getElementById('key').value = {key:?}; document.querySelector('form').requestSubmit()");
    page.value(&enter("wrong"));
    page.shows("state", "none of the server's");
    page.value(&enter("secret"));
    page.shows("state", "ready");
    page.shows("answered", "0");
    assert_eq!(page.value("localStorage.length + sessionStorage.length + document.cookie.length"), 0);

    (0..3).for_each(|seed| send(&digits(seed)));
    page.shows("answered", "3");
    (0..40).for_each(|_| send(&digit()));
    page.shows("answered", "43");
    page.shows("hits", "90.7 %");
    page.shows("models", "digits-mlp 1");
    page.shows("stages", "digits-mlp 1");
    page.shows("limits", "tenant team");
    page.shows("cache", "this process");
    let drawn = "document.querySelector('#requests polyline').getAttribute('points').split(' ').map(p => +p.split(',')[1])";
    eventually("the chart has a peak", || page.value(&format!("Math.min(...{drawn}) < 2")) == true);
    assert_eq!(page.text("failed"), "0");

    let mut backgrounds = Vec::new();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        page.look(width, scheme);
        let fits = page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth");
        assert_eq!(fits, true, "{width} {scheme}: wider than the window");
        backgrounds.push(page.value("getComputedStyle(document.body).backgroundColor"));
        page.picture(&format!("status-{width}-{scheme}.png"));
    }
    assert!(backgrounds[0] != backgrounds[1] && backgrounds[0] == backgrounds[2], "{backgrounds:?}");
    server.end();
    page.shows("state", "no answer");
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
}
