//! Curves as SVG, in colours that can be read on white and on black.

use std::fmt::Write;
use std::path::Path;

/// Size of a panel's axes, and the room around them.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 44.0;

/// Of axes and text.
const GREY: &str = "#808080";

/// A curve.
#[derive(Clone, Debug)]
pub struct Curve {
    pub name: &'static str,
    pub colour: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Curves over the same axes, both of them logarithmic.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    /// What the horizontal axis is.
    pub across: String,
    pub curves: Vec<Curve>,
}

/// From the first to the last power of ten that an axis shows.
#[derive(Clone, Copy)]
struct Decades {
    first: i32,
    last: i32,
}

impl Decades {
    fn around(values: impl Iterator<Item = f64> + Clone) -> Decades {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let greatest = values.fold(f64::MIN_POSITIVE, f64::max);
        let first = least.log10().floor() as i32;
        Decades {
            first,
            last: (greatest.log10().ceil() as i32).max(first + 1),
        }
    }

    /// Where a value is, between 0 and 1.
    fn place(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|power| 10_f64.powi(power))
    }
}

/// Draws panels beside each other, in a folder that is made if need be.
pub fn write(file: &Path, panels: &[Panel]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let across = LEFT + WIDTH + RIGHT;
    let (width, height) = (across * panels.len() as f64, TOP + HEIGHT + BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"{GREY}\">\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let left = LEFT + across * number as f64;
        writeln!(svg, "<g transform=\"translate({left} {TOP})\">").expect("a String takes all");
        panel.draw(&mut svg).expect("a String takes all");
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    std::fs::write(file, svg)
}

impl Panel {
    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let horizontal = Decades::around(points().map(|(x, _)| x).collect::<Vec<_>>().into_iter());
        let vertical = Decades::around(points().map(|(_, y)| y).collect::<Vec<_>>().into_iter());
        let x = |value: f64| WIDTH * horizontal.place(value);
        let y = |value: f64| HEIGHT * (1.0 - vertical.place(value));
        writeln!(svg, "<text y=\"-18\" font-size=\"13\">{}</text>", self.title)?;
        for tick in vertical.ticks() {
            let at = y(tick);
            writeln!(
                svg,
                "<path d=\"M0 {at:.1}H{WIDTH}\" stroke=\"{GREY}\" stroke-opacity=\".3\"/>\
                 <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                at + 4.0,
                label(tick)
            )?;
        }
        for tick in horizontal.ticks() {
            let at = x(tick);
            writeln!(
                svg,
                "<path d=\"M{at:.1} {HEIGHT}v4\" stroke=\"{GREY}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT + 17.0,
                label(tick)
            )?;
        }
        writeln!(svg, "<path d=\"M0 {HEIGHT}H{WIDTH}\" stroke=\"{GREY}\"/>")?;
        let (middle, under) = (WIDTH / 2.0, HEIGHT + 34.0);
        writeln!(
            svg,
            "<text x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">{}</text>",
            self.across
        )?;
        for (number, curve) in self.curves.iter().enumerate() {
            let colour = curve.colour;
            let path: Vec<String> = curve
                .points
                .iter()
                .map(|&(across, up)| format!("{:.1} {:.1}", x(across), y(up)))
                .collect();
            writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join("L")
            )?;
            for &(across, up) in &curve.points {
                let (x, y) = (x(across), y(up));
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
            }
            writeln!(
                svg,
                "<text x=\"{}\" y=\"-4\" fill=\"{colour}\">{}</text>",
                60 * number,
                curve.name
            )?;
        }
        Ok(())
    }
}

/// A power of ten, as short as it can be read.
fn label(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{value}"),
    }
}
