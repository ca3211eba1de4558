/*!
`cargo xtask html`: the page of `stockade assess --html` in a real browser: accessible, by keyboard, narrow, printed, and asking for nothing.

The page is that of an assessment in the tests' data, with every verdict. Accessibility is judged by axe-core.
*/
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use stockade_lab::tool;

use crate::{browser::Browser, setup, workspace};

const EXAMPLE: &str = "stockade/tests/data/assessment.json";
const PICTURE: &str = "docs/assess.png";

/// Text that an attacker may have put where evidence is read.
const EVIL: &str = "</script></style><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>";

/// The pictures to take.
#[derive(Debug, Args)]
pub struct Flags {
    /// Only take the picture for the README, docs/assess.png
    #[arg(long)]
    screenshot: bool,
    /// Also write pictures of the page in every form into this folder
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
}

impl Flags {
    /// Returns the flags for the tests.
    pub fn check() -> Self {
        Self { screenshot: false, pictures: None }
    }
}

/// Returns whether every check of the page passed; prints those that failed.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    setup::need(&[setup::BROWSER])?;
    let folder = workspace::target_folder().join("html");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    // A new profile each time: Chromium refuses one that another browser has open.
    let profile = folder.join(format!("profile-{}", std::process::id()));
    let result = look(flags, &folder, &profile);
    let _ = fs::remove_dir_all(&profile);
    result
}

fn look(flags: &Flags, folder: &Path, profile: &Path) -> anyhow::Result<bool> {
    let example = fs::read_to_string(workspace::root().join(EXAMPLE)).context("reading the example")?;
    let page = page(folder, "page", &example)?;
    let mut browser = Browser::start(profile)?;
    if flags.screenshot {
        picture(&mut browser, &page, ("screen", "light"), (1280, 1480), &workspace::root().join(PICTURE))?;
        return Ok(true);
    }
    if let Some(pictures) = &flags.pictures {
        fs::create_dir_all(pictures).context("making the folder for pictures")?;
        for (name, media, size) in [
            ("light", ("screen", "light"), (1280, 2400)),
            ("dark", ("screen", "dark"), (1280, 2400)),
            ("narrow", ("screen", "light"), (360, 2400)),
            ("print", ("print", "light"), (794, 2400)),
        ] {
            picture(&mut browser, &page, media, size, &pictures.join(format!("{name}.png")))?;
        }
    }
    let axe = fs::read_to_string(setup::axe_core()?).context("reading axe-core")?;
    let mut wrong = Vec::new();
    let mut judge = |what: &str, found: anyhow::Result<Vec<String>>| match found {
        Ok(found) if found.is_empty() => println!("  ok   {what}"),
        Ok(found) => wrong.extend(found.into_iter().map(|found| format!("{what}: {found}"))),
        Err(error) => wrong.push(format!("{what}: {error:#}")),
    };
    judge("asks for nothing and says nothing on the console", asks_for_nothing(&mut browser, &page));
    for scheme in ["light", "dark"] {
        judge(&format!("accessible, {scheme}"), accessible(&mut browser, &page, &axe, scheme));
    }
    judge("by keyboard", keyboard(&mut browser, &page));
    judge("shows single verdicts", filter(&mut browser, &page));
    judge("narrow", narrow(&mut browser, &page));
    judge("printed whole", printed(&mut browser, &page));
    judge("without script", without_script(&mut browser, &page));
    judge("what an attacker wrote is text", evil(&mut browser, folder, &example));
    for wrong in &wrong {
        println!("  FAIL {wrong}");
    }
    Ok(wrong.is_empty())
}

/// Returns the page that the program makes of an assessment.
fn page(folder: &Path, name: &str, assessment: &str) -> anyhow::Result<PathBuf> {
    let (json, html) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.html")));
    fs::write(&json, assessment).with_context(|| format!("writing {}", json.display()))?;
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "stockade", "--", "assess", "--html", "--fail-on", "never"]);
    let text = tool::output(cargo.arg("--from").arg(&json))?;
    fs::write(&html, text).with_context(|| format!("writing {}", html.display()))?;
    html.canonicalize().context("finding the page again")
}

fn picture(
    browser: &mut Browser,
    page: &Path,
    (media, scheme): (&str, &str),
    (width, height): (u32, u32),
    to: &Path,
) -> anyhow::Result<()> {
    browser.media(media, scheme)?;
    browser.size(width, height)?;
    browser.open(page)?;
    let taken = browser.call("Page.captureScreenshot", &json!({"format": "png"}))?;
    let bytes = base64(taken["data"].as_str().context("a picture has data")?)?;
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    println!("  wrote {}", to.display());
    Ok(())
}

fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).context("a picture is in base 64")
}

fn fresh(browser: &mut Browser, page: &Path, width: u32) -> anyhow::Result<()> {
    browser.media("screen", "light")?;
    browser.size(width, 900)?;
    browser.open(page)
}

fn asks_for_nothing(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    fresh(browser, page, 1280)?;
    // After two frames every late event has been received.
    browser
        .eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")?;
    Ok(heard(browser, page))
}

/// Returns the requests, messages and exceptions since the page was opened.
fn heard(browser: &mut Browser, page: &Path) -> Vec<String> {
    let own = format!("file://{}", page.display());
    let events = browser.take_events();
    let heard = events.into_iter().filter_map(|(name, event)| match name.as_str() {
        "Network.requestWillBeSent" if event["request"]["url"] != own.as_str() => {
            Some(format!("it asks for {}", event["request"]["url"]))
        }
        "Runtime.exceptionThrown" => Some(format!("exception: {}", event["exceptionDetails"]["text"])),
        "Runtime.consoleAPICalled" => Some(format!("console: {}", event["args"])),
        "Log.entryAdded" => Some(format!("log: {}", event["entry"]["text"])),
        _ => None,
    });
    heard.collect()
}

fn accessible(browser: &mut Browser, page: &Path, axe: &str, scheme: &str) -> anyhow::Result<Vec<String>> {
    fresh(browser, page, 1280)?;
    browser.media("screen", scheme)?;
    browser.eval(&format!("{axe}; 1"))?;
    let mut wrong = Vec::new();
    for open in [false, true] {
        browser.eval(&format!(
            "document.querySelectorAll('details').forEach((d) => {{ d.open = {open}; }}); 1"
        ))?;
        let result = browser.eval(
            "axe.run(document).then((r) => ({ passes: r.passes.length, violations: r.violations.map((v) => \
             v.id + ': ' + v.help + ' (' + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120)).join(' | ') + ')'), \
             incomplete: r.incomplete.map((v) => v.id + ': ' + v.nodes.length + ' not judged, such as ' + v.nodes[0].html.slice(0, 120)) }))",
        )?;
        ensure!(result["passes"].as_u64() > Some(10), "axe looked at nothing: {result}");
        for list in ["violations", "incomplete"] {
            wrong.extend(result[list].as_array().into_iter().flatten().map(Value::to_string));
        }
    }
    Ok(wrong)
}

/// Checks that Tab reaches every element that can be opened, and that Enter opens it.
fn keyboard(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    fresh(browser, page, 1280)?;
    let all = number(browser, "document.querySelectorAll('details.finding').length")?;
    let mut wrong = Vec::new();
    browser.press("Tab")?;
    if browser.eval("document.activeElement.className")? != "skip" {
        wrong.push("the first stop is not the way past the summary".into());
    }
    let (mut reached, mut opened, mut unseen) = (0, 0, 0);
    // The findings, the links to them, the buttons; the next Tab leaves the page.
    for _ in 0..all * 3 + 40 {
        browser.press("Tab")?;
        let at = browser.eval(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e); \
             return { summary: e.matches('details.finding > summary'), seen: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2, \
             body: e === document.body }; })()",
        )?;
        if at["body"] == true {
            break;
        }
        unseen += u64::from(at["seen"] != true);
        if at["summary"] == true {
            reached += 1;
            browser.press("Enter")?;
            opened += u64::from(browser.eval("document.activeElement.parentElement.open")? == true);
            // Opened elements have links of their own, which are not counted.
            browser.press("Enter")?;
        }
        if reached == all {
            break;
        }
    }
    if (reached, opened) != (all, all) {
        wrong
            .push(format!("of {all} findings {reached} are reached by Tab and {opened} are opened by Enter"));
    }
    if unseen > 0 {
        wrong.push(format!("{unseen} stops do not show that they are"));
    }
    Ok(wrong)
}

fn filter(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    const SHOWN: &str =
        "[...document.querySelectorAll('details.finding')].filter((d) => d.checkVisibility())";
    fresh(browser, page, 1280)?;
    browser.eval("document.querySelector('button[data-state=\"fail\"]').click(); 1")?;
    let failed = number(browser, &format!("{SHOWN}.filter((d) => d.dataset.state === 'fail').length"))?;
    let shown = number(browser, &format!("{SHOWN}.length"))?;
    let said = browser.eval("document.querySelector('.says').textContent")?;
    let mut wrong = Vec::new();
    if failed == 0 || failed != shown {
        wrong.push(format!("{shown} are shown, {failed} of them fail"));
    }
    if !said.as_str().is_some_and(|said| said.starts_with(&format!("{shown} of "))) {
        wrong.push(format!("it says {said}"));
    }
    // A link from the summary shows its finding, whatever the filter.
    let id = browser.eval("(() => { const a = document.querySelector('.open a[href=\"#ksm.running\"]'); a.click(); \
                           return new Promise((done) => setTimeout(() => done(document.getElementById('ksm.running').open), 100)); })()")?;
    if id != true {
        wrong.push("a link from the summary does not open its finding".into());
    }
    let again = browser.eval("(() => { document.querySelector('button[data-state=\"pass\"]').click(); \
                              document.querySelector('.open a[href=\"#ksm.running\"]').click(); \
                              return new Promise((done) => setTimeout(() => done(document.getElementById('ksm.running').checkVisibility()), 100)); })()")?;
    if again != true {
        wrong.push("the same link does not show its finding again after it was filtered out".into());
    }
    Ok(wrong)
}

fn narrow(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for width in [320, 360, 600, 800] {
        fresh(browser, page, width)?;
        browser.eval("document.querySelectorAll('details').forEach((d) => { d.open = true; }); 1")?;
        let wide = number(browser, "document.documentElement.scrollWidth")?;
        if wide > u64::from(width) {
            wrong.push(format!("at {width} pixels it is {wide} wide"));
        }
    }
    Ok(wrong)
}

/// Checks that elements folded on the screen are unfolded in print.
fn printed(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    fresh(browser, page, 794)?;
    browser.media("print", "light")?;
    let hidden = number(
        browser,
        "[...document.querySelectorAll('.inside')].filter((e) => !e.offsetHeight || !e.checkVisibility({ contentVisibilityAuto: true })).length",
    )?;
    let pdf = browser.call("Page.printToPDF", &json!({}))?;
    let bytes = base64(pdf["data"].as_str().unwrap_or_default())?;
    let mut wrong = Vec::new();
    if hidden > 0 {
        wrong.push(format!("{hidden} findings are printed closed"));
    }
    if !bytes.starts_with(b"%PDF") {
        wrong.push("no PDF came".into());
    }
    Ok(wrong)
}

fn without_script(browser: &mut Browser, page: &Path) -> anyhow::Result<Vec<String>> {
    browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": true}))?;
    fresh(browser, page, 1280)?;
    let document = browser.call("DOM.getDocument", &json!({"depth": 0}))?;
    let bar = json!({"nodeId": document["root"]["nodeId"], "selector": ".filter[hidden]"});
    let bar = browser.call("DOM.querySelector", &bar)?;
    let all =
        json!({"nodeId": document["root"]["nodeId"], "selector": "details.finding:not([hidden]) .inside"});
    let all = browser.call("DOM.querySelectorAll", &all)?;
    browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": false}))?;
    let mut wrong = Vec::new();
    if bar["nodeId"] == 0 {
        wrong.push("buttons are shown that do nothing".into());
    }
    if all["nodeIds"].as_array().is_none_or(Vec::is_empty) {
        wrong.push("findings are not there".into());
    }
    Ok(wrong)
}

/// Replaces every observed text by markup that would run if it were not escaped.
fn evil(browser: &mut Browser, folder: &Path, example: &str) -> anyhow::Result<Vec<String>> {
    let mut assessment: Value = serde_json::from_str(example)?;
    spoil(&mut assessment["features"]);
    let page = page(folder, "evil", &assessment.to_string())?;
    fresh(browser, &page, 1280)?;
    let mut wrong = heard(browser, &page);
    let ran = browser.eval("typeof window.evil")?;
    if ran != "undefined" {
        wrong.push("it ran".into());
    }
    if number(browser, "document.scripts.length + document.images.length")? != 1 {
        wrong.push("it became an element".into());
    }
    if number(browser, "document.body.textContent.split('window.evil').length")? < 20 {
        wrong.push("it is not shown as text".into());
    }
    Ok(wrong)
}

fn spoil(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(spoil),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &value) {
                    ("found" | "source" | "observed" | "reason" | "name", Value::String(_)) => {
                        *value = json!(EVIL);
                    }
                    _ => spoil(value),
                }
            }
        }
        _ => {}
    }
}

fn number(browser: &mut Browser, expression: &str) -> anyhow::Result<u64> {
    let value = browser.eval(expression)?;
    value.as_u64().with_context(|| format!("{expression} is {value}"))
}
