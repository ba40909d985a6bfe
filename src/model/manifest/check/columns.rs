//! Rules of columns: each belongs to the column's type (E113).

use serde_json::Value;

use super::names::Names;
use crate::model::manifest::{
    ColumnDefault,
    complaint::{list, shown},
    problem::{Problem, ProblemCode},
    record,
    table::ScalarType,
    view::View,
};

pub(super) fn check(root: &View<'_>, names: &Names<'_>, problems: &mut Vec<Problem>) {
    for table in root.items("database/tables") {
        for (_, column) in table.members("schema") {
            if let Some(kind) = column.text("type").and_then(ScalarType::from_name) {
                rules(&column, kind, problems);
                default(&column, kind, problems);
            }
        }
        let retention = table.at("retention/column");
        let kind = retention
            .as_ref()
            .and_then(|column| names.tables.get(table.text("name")?)?.get(column.as_text()?).copied().flatten());
        if let (Some(column), Some(kind)) = (retention, kind)
            && !matches!(kind, ScalarType::Date | ScalarType::Datetime)
        {
            let words =
                format!("a row's age is told by a `date` or `datetime`; this column is of type `{}`", kind.as_str());
            problems.push(column.problem(ProblemCode::ColumnRules, words));
        }
    }
}

fn rules(column: &View<'_>, kind: ScalarType, problems: &mut Vec<Problem>) {
    let fits: [(&str, bool, &str); 7] = [
        ("enum", kind.is_text(), "texts"),
        ("max_length", kind.is_text(), "texts"),
        ("search", kind.is_text(), "texts"),
        ("min", kind.is_number(), "numbers"),
        ("max", kind.is_number(), "numbers"),
        ("index", kind != ScalarType::Json, "columns of other types than `json`"),
        ("unique", kind != ScalarType::Json, "columns of other types than `json`"),
    ];
    for (rule, fits, what) in fits {
        if let Some(place) = column.at(rule).filter(|place| !fits && place.value != &Value::Bool(false)) {
            let words = format!("`{rule}` is for {what}; this column is of type `{}`", kind.as_str());
            problems.push(place.problem(ProblemCode::ColumnRules, words));
        }
    }
    let number = |key: &str| column.at(key).and_then(|place| place.value.as_f64());
    if let (Some(min), Some(max), Some(place)) = (number("min"), number("max"), column.at("max"))
        && min > max
    {
        problems
            .push(place.problem(ProblemCode::ColumnRules, format!("`max` is {max}, less than `min`, which is {min}")));
    }
    if let Some(place) = column.at("on_delete").filter(|_| column.at("references").is_none()) {
        let words = "`on_delete` needs `references`: it tells what happens when the row that is pointed at goes";
        problems.push(place.problem(ProblemCode::ColumnRules, words));
    }
}

/// A default is a value of the column's type that its rules allow, or one made at insertion.
fn default(column: &View<'_>, kind: ScalarType, problems: &mut Vec<Problem>) {
    let Some(place) = column.at("default").filter(|place| !place.value.is_null()) else { return };
    let words = match ColumnDefault::from(place.value.clone()) {
        ColumnDefault::Now if kind == ScalarType::Datetime => return,
        ColumnDefault::Today if kind == ScalarType::Date => return,
        ColumnDefault::Uuid if matches!(kind, ScalarType::Uuid | ScalarType::String) => return,
        ColumnDefault::Now => "`$now` is for columns of type `datetime`".to_owned(),
        ColumnDefault::Today => "`$today` is for columns of type `date`".to_owned(),
        ColumnDefault::Uuid => "`$uuid` is for columns of type `uuid` or `string`".to_owned(),
        ColumnDefault::Constant(value) if !record::is_of_type(&value, kind) => {
            format!("the default must be of the column's type, `{}`; this is {}", kind.as_str(), shown(&value))
        }
        ColumnDefault::Constant(value) => match outside_rules(column, &value) {
            Some(words) => words,
            None => return,
        },
    };
    problems.push(place.problem(ProblemCode::ColumnRules, words));
}

fn outside_rules(column: &View<'_>, value: &Value) -> Option<String> {
    let allowed: Vec<&str> = column.items("enum").filter_map(|one| one.as_text()).collect();
    if let Some(text) = value.as_str().filter(|text| !allowed.is_empty() && !allowed.contains(text)) {
        return Some(format!("the default `{text}` is not among the column's values, {}", list(allowed)));
    }
    let bound = |key: &str| column.at(key).and_then(|place| place.value.as_f64());
    let number = value.as_f64()?;
    let outside = bound("min").is_some_and(|min| number < min) || bound("max").is_some_and(|max| number > max);
    outside.then(|| format!("the default {number} is outside the column's `min` and `max`"))
}
