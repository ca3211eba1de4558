/*!
Figures as bars. The table that a bar stands in says the same in words, so that a bar is for the eye alone.
*/
use std::collections::BTreeMap;

use maud::{Markup, html};
use stockade_assess::Measure;

use super::super::{report::Feature, table::figure};

/// How much of all findings each state has.
pub fn share(parts: &[(&str, usize)]) -> Markup {
    let all = parts.iter().map(|(_, count)| count).sum::<usize>().max(1);
    let parts = parts.iter().scan(0, |begin, (class, count)| {
        let at = *begin;
        *begin += count;
        Some((*class, at, *count))
    });
    html! {
        svg.share viewBox=(format!("0 0 {all} 1")) preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            @for (class, at, count) in parts { rect class=(class) x=(at) y="0" width=(count) height="1" {} }
        }
    }
}

/// A feature's figures, those of one unit together.
pub fn figures(feature: &Feature) -> Markup {
    let mut units: BTreeMap<&str, Vec<&Measure>> = BTreeMap::new();
    for measure in feature.findings.iter().flat_map(|found| &found.finding.measures) {
        units.entry(&measure.unit).or_default().push(measure);
    }
    html! {
        @for (unit, measures) in units {
            @let largest = measures.iter().map(|m| m.value.max(m.expected.unwrap_or(0.0))).fold(0.0, f64::max);
            @let wanted = measures.iter().any(|measure| measure.expected.is_some());
            figure {
                figcaption {
                    "Measured, in " (unit) @if wanted { "; the mark is what it should be" }
                }
                table {
                    thead { tr { th scope="col" { "Of" } th scope="col" { "How much" } th scope="col" { "In " (unit) } } }
                    tbody {
                        @for measure in measures {
                            tr {
                                th scope="row" { (measure.name) }
                                td { (bar(measure, largest)) }
                                td.value {
                                    (figure(measure.value))
                                    @if let Some(expected) = measure.expected { " (should be " (figure(expected)) ")" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn bar(measure: &Measure, largest: f64) -> Markup {
    /// The width of the drawing in its own units.
    const WIDE: f64 = 400.0;
    let at = |value: f64| if largest > 0.0 { (value / largest).clamp(0.0, 1.0) * WIDE } else { 0.0 };
    html! {
        svg.bar viewBox=(format!("0 0 {WIDE} 10")) preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.track x="0" y="2" width=(WIDE) height="6" {}
            rect.value x="0" y="2" width=(format!("{:.1}", at(measure.value))) height="6" {}
            @if let Some(expected) = measure.expected {
                rect.wanted x=(format!("{:.1}", (at(expected) - 2.0).max(0.0))) y="0" width="2" height="10" {}
            }
        }
    }
}
