//! Every problem code, with its status and meaning.

use pulse_http::ProblemCode;

use crate::output::print_text;

pub(super) fn print() -> anyhow::Result<()> {
    let mut lines = vec!["| status | code | meaning |\n|---|---|---|".to_owned()];
    lines.extend(ProblemCode::all().map(|code| {
        format!("| {} | `{}` | {} |", code.status().as_u16(), code.as_str(), code.meaning().replace('|', "\\|"))
    }));
    lines.push(String::new());
    print_text(&lines.join("\n"))
}
