//! Every problem code, with its status and meaning.

use pulse_http::ProblemCode;

use super::page::{Page, Table, code};

const INTRODUCTION: &str = "\
Errors are `application/problem+json` with `type`, `title`, `status`, `detail`, `instance` (the request's id) and
`code`. Validation errors also have `errors` with `loc`, `msg`, `type` and, in a batch, `index`. Codes are stable.";

pub(super) fn page() -> Page {
    let mut table = Table::new(&["status", "code", "meaning"]);
    for problem in ProblemCode::all() {
        table.row(&[problem.status().as_str(), &code(problem.as_str()), problem.meaning()]);
    }
    let text = format!("{INTRODUCTION}\n\n{}", table.0);
    Page { path: "problem-codes.md".into(), title: "Problem codes".into(), text }
}
