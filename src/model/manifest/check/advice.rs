//! Advice: prompts that cost much (W202) or that no cache keeps (W203), indexes that nothing declared uses (W204).

use super::names::Names;
use crate::model::manifest::{
    problem::{Problem, ProblemCode},
    view::View,
};

/// The longest prompt without advice, in characters.
const PROMPT_CHARS: usize = 1_500;

/// The shortest prefix that a model's cache keeps, in tokens.
const PREFIX_TOKENS: usize = 512;

/// How many characters of English or JSON make a token, roughly.
const CHARS_PER_TOKEN: usize = 4;

pub(super) fn check(root: &View<'_>, _: &Names<'_>, problems: &mut Vec<Problem>) {
    if let Some(prompt) = root.at("agent_config/system_prompt") {
        let chars = prompt.as_text().map_or(0, |text| text.chars().count());
        if chars > PROMPT_CHARS {
            let words =
                format!("the prompt has {chars} characters, and each turn pays for them; {PROMPT_CHARS} should do");
            problems.push(prompt.problem(ProblemCode::LongPrompt, words));
        }
        let tools = root.at("agent_config/tools").map_or(0, |tools| tools.value.to_string().len());
        let tokens = (chars + tools) / CHARS_PER_TOKEN;
        if tokens < PREFIX_TOKENS {
            let words = format!(
                "prompt and tools are about {tokens} tokens; below {PREFIX_TOKENS} the model's cache does not keep them"
            );
            problems.push(prompt.problem(ProblemCode::ShortPrefix, words));
        }
    }
    indexes(root, problems);
}

/// An index is used if a declared query filters or sorts by its first column. Of a table without declared queries nothing
/// is said: its handlers may have their own.
fn indexes(root: &View<'_>, problems: &mut Vec<Problem>) {
    let views = root.items("ui_components/widgets").chain(root.items("ui_components/pages"));
    let bindings: Vec<View<'_>> = views.flat_map(|view| view.members("data")).map(|(_, binding)| binding).collect();
    for table in root.items("database/tables") {
        let queries: Vec<_> =
            bindings.iter().filter(|b| b.text("table").is_some() && b.text("table") == table.text("name")).collect();
        for index in table.items("indexes").filter(|index| !queries.is_empty() && !index.flag("unique")) {
            let Some(first) = index.items("columns").next().and_then(|column| column.as_text()) else { continue };
            let first = first.trim_start_matches('-');
            let used = queries.iter().any(|query| {
                query.members("where").chain(query.members("order_by")).any(|(column, _)| column == first)
            });
            if !used {
                let words = format!("no query that the manifest declares on this table filters or sorts by `{first}`");
                problems.push(index.problem(ProblemCode::UnusedIndex, words));
            }
        }
    }
}
