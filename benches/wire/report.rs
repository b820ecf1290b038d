//! What was measured: as a table, as JSON, as Markdown, and held against what was recorded.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// What figures that do not jitter may differ by, nevertheless: part of what was recorded.
const LEAST_NOISE: f64 = 0.03;

/// What a figure should be at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Most {
    /// So many times the floor.
    Ratio(f64),
    /// So much more than the floor.
    Above(f64),
    /// So much, whatever the floor needs.
    Value(f64),
    /// It is only told.
    Anything,
}

/// What a figure is.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Family, case and variant, with `/` between them.
    pub name: String,
    /// What it is counted in. Less of it is better.
    pub unit: &'static str,
    pub most: Most,
}

impl Spec {
    pub fn new(name: impl Into<String>, unit: &'static str, most: Most) -> Spec {
        Spec {
            name: name.into(),
            unit,
            most,
        }
    }
}

/// One figure, medians of runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// `keyrelay`, or the name of a peer.
    pub who: String,
    pub unit: String,
    pub floor: Option<f64>,
    pub relay: f64,
    /// The median of the ratios of neighbouring runs.
    pub ratio: Option<f64>,
    /// Between the least and the greatest ratio or, without a floor, value.
    pub noise: f64,
    pub most: Most,
    /// Of floor and relay, as they were taken.
    pub runs: Vec<(Option<f64>, f64)>,
    /// What else was seen in a run in the middle.
    pub also: String,
}

impl Figure {
    /// Of these runs of floor and relay.
    pub fn new(spec: &Spec, who: &str, runs: Vec<(Option<f64>, f64)>, also: String) -> Figure {
        let floors: Option<Vec<f64>> = runs.iter().map(|(floor, _)| *floor).collect();
        let floor = floors.filter(|floors| !floors.is_empty()).map(median);
        let relay = median(runs.iter().map(|(_, relay)| *relay).collect());
        // Of neighbours in time: the machine's mood is in both.
        // A floor that took no time that could be seen says nothing.
        let ratio = |(floor, relay): &(Option<f64>, f64)| Some(relay / floor.filter(|floor| *floor > 0.0)?);
        let ratios: Vec<f64> = runs.iter().filter_map(ratio).collect();
        let has_ratio = !ratios.is_empty();
        let values = if has_ratio {
            ratios
        } else {
            runs.iter().map(|(_, relay)| *relay).collect()
        };
        let (least, greatest) = extremes(&values);
        Figure {
            name: spec.name.clone(),
            who: who.to_owned(),
            unit: spec.unit.to_owned(),
            floor,
            relay,
            ratio: has_ratio.then(|| median(values)),
            noise: greatest - least,
            most: spec.most,
            runs,
            also,
        }
    }

    /// What is held against what was recorded.
    fn weight(&self) -> f64 {
        self.ratio.unwrap_or(self.relay)
    }

    /// Whether it is what it should be; `None` if nobody has said.
    fn is_met(&self) -> Option<bool> {
        match self.most {
            Most::Ratio(most) => Some(self.ratio? <= most),
            Most::Above(most) => Some(self.relay - self.floor? <= most),
            Most::Value(most) => Some(self.relay <= most),
            Most::Anything => None,
        }
    }

    fn most(&self) -> String {
        match self.most {
            Most::Ratio(most) => format!("{most} ×"),
            Most::Above(most) => format!("+ {most}"),
            Most::Value(most) => format!("{most}"),
            Most::Anything => String::new(),
        }
    }

    fn range(&self, of: impl Fn(&(Option<f64>, f64)) -> Option<f64>, median: Option<f64>) -> String {
        let Some(median) = median else { return "-".to_owned() };
        let (least, greatest) = extremes(&self.runs.iter().filter_map(of).collect::<Vec<_>>());
        format!("{} ({} - {})", number(median), number(least), number(greatest))
    }

    fn row(&self) -> [String; 8] {
        let is_own = self.who == "keyrelay";
        let who = if is_own { "" } else { &self.who };
        [
            format!("{} {who}", self.name).trim().to_owned(),
            self.unit.clone(),
            self.range(|(floor, _)| *floor, self.floor),
            self.range(|(_, relay)| Some(*relay), Some(self.relay)),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            if is_own { self.most() } else { String::new() },
            match self.is_met().filter(|_| is_own) {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            }
            .to_owned(),
            self.also.clone(),
        ]
    }
}

/// All figures, with what they depend on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// The revision of the source, with a `+` if files were changed.
    pub commit: String,
    /// UTC.
    pub date: String,
    pub figures: Vec<Figure>,
}

impl Report {
    pub fn new(machine: Machine) -> Report {
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Report {
            machine,
            commit: commit(),
            date: humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).to_string(),
            figures: Vec::new(),
        }
    }

    /// The heading of the table.
    pub fn print_head(&self) {
        println!("{}\ncommit {}, {}\n", self.machine.describe(), self.commit, self.date);
        print_row([
            "figure",
            "unit",
            "floor (least - most)",
            "keyrelay (least - most)",
            "ratio",
            "at most",
            "",
            "",
        ]);
    }

    /// Adds a figure, and prints it.
    pub fn add(&mut self, figure: Figure) {
        print_row(figure.row().each_ref().map(String::as_str));
        self.figures.push(figure);
    }

    /// Says in the table why something was not measured.
    pub fn skip(&self, name: &str, why: &str) {
        println!("{name:<44} NOT MEASURED: {why}");
    }

    /// As JSON, in a folder that is made if need be.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// As a table for `docs/performance.md`.
    pub fn write_markdown(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = format!(
            "{}; commit {}, {}.\n\n| figure | unit | floor (least - most) | keyrelay (least - most) | ratio | at most | | |\n\
             |---|---|--:|--:|--:|--:|---|---|\n",
            self.machine.describe(),
            self.commit,
            self.date
        );
        for figure in &self.figures {
            writeln!(text, "| {} |", figure.row().join(" | "))?;
        }
        Ok(std::fs::write(file, text)?)
    }

    /// What is worse than recorded by more than the noise of then, each in a line.
    pub fn worse_than(&self, recorded: &Report) -> Vec<String> {
        let mut worse = Vec::new();
        for then in recorded.figures.iter().filter(|figure| figure.who == "keyrelay") {
            let same = |figure: &&Figure| {
                // A ratio is not held against a value.
                let is_alike = figure.ratio.is_some() == then.ratio.is_some();
                figure.name == then.name && figure.who == then.who && is_alike
            };
            let Some(now) = self.figures.iter().find(same) else {
                continue;
            };
            let noise = then.noise.max(then.weight() * LEAST_NOISE);
            if now.weight() > then.weight() + noise {
                let (what, unit) = match now.ratio {
                    Some(_) => ("ratio", ""),
                    None => ("value", now.unit.as_str()),
                };
                worse.push(format!(
                    "{}: {what} {} {unit}, recorded {} ± {}",
                    now.name,
                    number(now.weight()),
                    number(then.weight()),
                    number(noise)
                ));
            }
        }
        worse
    }
}

fn print_row(cells: [&str; 8]) {
    let [name, unit, floor, relay, ratio, most, met, also] = cells;
    let row = format!("{name:<44} {unit:<22} {floor:>26} {relay:>26} {ratio:>6} {most:>7} {met:<6} {also}");
    println!("{}", row.trim_end());
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        return values[half];
    }
    f64::midpoint(values[half - 1], values[half])
}

fn extremes(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, greatest)
}

/// Three digits, or all of those before the point.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    commit + if changed { "+" } else { "" }
}
