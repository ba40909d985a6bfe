//! What the command line wants of a bench.

/// The parts of the bench `name` that were named, of those that there are, and for how many minutes the long ones are to run
/// instead of their own: `queue churn --minutes 1`. None were named: all are wanted.
pub fn parts(name: &str, there_are: &[&str]) -> (Vec<String>, Option<f64>) {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    let (mut parts, mut minutes) = (Vec::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => minutes = arguments.next().and_then(|minutes| minutes.parse().ok()),
            // cargo adds flags of its own.
            flag if flag.starts_with('-') => {}
            part => {
                assert!(there_are.contains(&part), "there is no part `{part}`; there are: {}", there_are.join(" "));
                parts.push(part.to_owned());
            }
        }
    }
    (parts, minutes)
}
