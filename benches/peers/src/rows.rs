//! The rows that are printed: `name | ours | reference | ratio | goal | ok`.

/// One value that a measure yields.
#[derive(Clone, Copy)]
pub struct Value {
    /// The first column.
    pub name: &'static str,
    /// Of the values.
    pub unit: &'static str,
    /// What ours is to stay below.
    pub aim: Option<f64>,
    /// The largest ratio to OTP's, or to bare ractor's, that is good enough.
    pub goals: &'static [(&'static str, f64)],
}

/// Prints the head of the table.
pub fn head() {
    println!("name | ours | reference | ratio | goal | ok");
}

/// Ours against its aim.
pub fn aim_row(value: Value, ours: f64) {
    let Some(aim) = value.aim else { return };
    let (ours_text, aim_text) = (shown(ours, value.unit), shown(aim, value.unit));
    println!("{} | {ours_text} | - | {:.2} | {aim_text} | {}", value.name, ours / aim, verdict(ours <= aim));
}

/// Ours against a peer's, or against what the peer does not have.
pub fn peer_row(value: Value, ours: f64, peer: &str, theirs: Option<f64>) {
    let ours_text = shown(ours, value.unit);
    let Some(theirs) = theirs else {
        return println!("{} vs {peer} | {ours_text} | - | - | - | has none", value.name);
    };
    let ratio = ours / theirs;
    let goal = value.goals.iter().find(|(name, _)| *name == peer).map(|(_, goal)| *goal);
    let (goal, verdict) = match goal {
        Some(goal) => (format!("{goal:.2}"), verdict(ratio <= goal)),
        None => ("-".to_owned(), "-"),
    };
    println!(
        "{} vs {peer} | {ours_text} | {} | {ratio:.2} | {goal} | {verdict}",
        value.name,
        shown(theirs, value.unit)
    );
}

/// Two values of the same system, the first of which is to be at most `goal` times the second.
pub fn growth_row(name: &str, system: &str, unit: &str, (large, small): (f64, f64), goal: Option<f64>) {
    let ratio = large / small;
    let (goal, verdict) = match goal {
        Some(goal) => (format!("{goal:.2}"), verdict(ratio <= goal)),
        None => ("-".to_owned(), "-"),
    };
    let (large, small) = (shown(large, unit), shown(small, unit));
    println!("{name}, {system} | {large} | {small} | {ratio:.2} | {goal} | {verdict}");
}

fn shown(value: f64, unit: &str) -> String {
    let digits = if value < 100.0 { 1 } else { 0 };
    format!("{value:.digits$} {unit}")
}

fn verdict(reached: bool) -> &'static str {
    if reached { "ok" } else { "SHORT" }
}
