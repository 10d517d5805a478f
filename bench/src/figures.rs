//! A figure: what was measured, and its bound (pure).

/// One line of the result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    name: String,
    measured: String,
    value: f64,
    most: f64,
    unit: &'static str,
    more: String,
}

impl Figure {
    /// A value that must be at most `most`, both in this unit.
    pub(crate) fn at_most(name: impl Into<String>, value: f64, most: f64, unit: &'static str) -> Self {
        let measured = format!("{} {unit}", number(value)).trim_end().to_owned();
        Figure { name: name.into(), measured, value, most, unit, more: String::new() }
    }

    /// With words about how it came about.
    #[must_use]
    pub(crate) fn with(mut self, more: impl Into<String>) -> Self {
        self.more = more.into();
        self
    }

    /// Whether the bound is held. What is no number holds nothing.
    pub(crate) fn holds(&self) -> bool {
        self.value <= self.most
    }
}

/// Two digits after the point, where there is anything after it.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// `figure | measured | bound | holds | command`, a line each.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = "figure | measured | bound | holds | command\n--- | --- | --- | --- | ---\n".to_owned();
    for figure in figures {
        let Figure { name, measured, most, unit, more, .. } = figure;
        let more = if more.is_empty() { String::new() } else { format!(" ({more})") };
        let bound = format!("≤ {} {unit}", number(*most));
        let holds = if figure.holds() { "holds" } else { "does not hold" };
        text.push_str(&format!("{name} | {measured}{more} | {} | {holds} | `make bench`\n", bound.trim_end()));
    }
    text
}

/// The value that half of all are at most; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50)
}

/// The value that so many of a hundred are at most (the nearest rank); `None` of nothing.
pub(crate) fn percentile(values: &[f64], of_hundred: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_holds_up_to_its_bound_and_what_is_no_number_never_does() {
        let of = |value| Figure::at_most("pace", value, 50.0, "ms").holds();
        assert_eq!([of(49.9), of(50.0), of(50.1), of(f64::NAN)], [true, true, false, false]);
    }

    #[test]
    fn a_line_says_all_of_a_figure() {
        let figures = [
            Figure::at_most("requests per step", 8.125, 10.0, "").with("7 steps"),
            Figure::at_most("list", 2.0, 1.5, "×"),
        ];
        let text = table(&figures);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "requests per step | 8.12 (7 steps) | ≤ 10 | holds | `make bench`");
        assert_eq!(lines[1], "list | 2 × | ≤ 1.50 × | does not hold | `make bench`");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values = [9.0, 1.0, 5.0, 3.0, 7.0];
        assert_eq!(
            [median(&values), percentile(&values, 95), percentile(&values, 1)],
            [Some(5.0), Some(9.0), Some(1.0)]
        );
        assert_eq!(median(&[2.0, 1.0]), Some(1.0));
        assert_eq!(median(&[]), None);
    }
}
