//! Conditions that users write: a small, bounded part of CEL.
//!
//! What bounds the cost of one evaluation: the text (1024 characters), its depth, and what may stand in it. There are
//! operators, a few functions none of which makes a text or a list longer, and the macros `has`, `all`, `exists` and
//! `exists_one`, which are not nested in one another. So a condition does at most (items of one list) × (length of the
//! text) operations. Lists are those of the text or of an object, and parameters of a Taskserv hold what their author likes: so
//! the product of an object's values and the length of the text is bounded, too. There is no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::parser::Parser;
use cel::{Context, ExecutionError, IdedExpr as Expression, Value};
use provisioning_api::names::MAX_CONDITION;
use provisioning_api::steps::StepPhase;
use serde::Serialize;

use crate::nearest::hint;

/// Deepest nesting of an expression, so that neither reading nor evaluating it runs out of stack.
const MAX_DEPTH: usize = 48;
/// Most brackets, or choices (`?`), within one another: the parser takes up to 200 KiB of stack for each.
const MAX_BRACKETS: usize = 16;
/// Most values of an object times bytes of the text: some 30 ms of work. Five thousand values, which is an object with the most
/// steps, leave room for a text of 400.
const MAX_WORK: usize = 2_000_000;
/// Stack for reading and evaluating, enough for the two above in an unoptimised build.
const STACK: usize = 8 * 1024 * 1024;

const FUNCTIONS: [&str; 7] = ["contains", "startsWith", "endsWith", "size", "string", "int", "double"];

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is too long.
    #[error("{0} characters are more than the {MAX_CONDITION} that a condition may have")]
    TooLong(usize),
    /// It is no CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// It is CEL, but not of the bounded part.
    #[error("{0}")]
    NotAllowed(String),
    /// It reads a step that it does not wait for.
    #[error("'{step}' is not among the dependencies of this step{hint}")]
    NoDependency {
        /// The name in the expression.
        step: String,
        /// What may have been meant, or empty.
        hint: String,
    },
}

/// A condition over the dependencies of a step: `steps.NAME.phase` and `steps.NAME.outputs`.
#[derive(Clone)]
pub struct When {
    text: String,
    expression: Arc<Expression>,
}

/// A condition over one object: `object.spec`, `object.status`, `object.metadata`.
#[derive(Clone)]
pub struct ObjectCondition {
    text: String,
    expression: Arc<Expression>,
}

macro_rules! is_its_text {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_tuple(stringify!($name)).field(&self.text).finish()
            }
        }
    };
}
is_its_text!(When);
is_its_text!(ObjectCondition);

/// What a condition sees of one dependency.
#[derive(Serialize)]
struct DependencyView<'a> {
    phase: String,
    outputs: &'a BTreeMap<String, String>,
}

impl When {
    /// Reads a condition of a step with these dependencies.
    ///
    /// # Errors
    /// Where it is no expression, not of the bounded part, or reads a step that is no dependency.
    pub fn new(text: &str, dependencies: &[&str]) -> Result<Self, ConditionError> {
        let expression = parse(text)?;
        let mut reading = Reading { root: "steps", dependencies: Some(dependencies), bound: BTreeSet::new() };
        reading.expression(&expression, MAX_DEPTH)?;
        Ok(When { text: text.to_owned(), expression: Arc::new(expression) })
    }

    /// Whether it holds for dependencies that have ended. Only what succeeded has outputs.
    ///
    /// # Errors
    /// Why it cannot be said: a missing output, or a result that is neither true nor false.
    pub fn holds<'a>(
        &self,
        dependencies: impl Iterator<Item = (&'a str, StepPhase, &'a BTreeMap<String, String>)>,
    ) -> Result<bool, String> {
        let none = BTreeMap::new();
        let view = |(name, phase, outputs)| {
            let outputs = if phase == StepPhase::Succeeded { outputs } else { &none };
            (name, DependencyView { phase: format!("{phase:?}"), outputs })
        };
        let steps: BTreeMap<&str, DependencyView<'_>> = dependencies.map(view).collect();
        evaluate(&self.expression, "steps", &steps)
    }
}

impl ObjectCondition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Where it is no expression, or not of the bounded part.
    pub fn new(text: &str) -> Result<Self, ConditionError> {
        let expression = parse(text)?;
        let mut reading = Reading { root: "object", dependencies: None, bound: BTreeSet::new() };
        reading.expression(&expression, MAX_DEPTH)?;
        Ok(ObjectCondition { text: text.to_owned(), expression: Arc::new(expression) })
    }

    /// Whether it holds for an object.
    ///
    /// # Errors
    /// Why it cannot be said: often a field that is not there yet.
    pub fn holds(&self, object: &serde_json::Value) -> Result<bool, String> {
        let count = values(object, MAX_WORK);
        if count.saturating_mul(self.text.len()) > MAX_WORK {
            let text = self.text.len();
            return Err(format!(
                "the object has {count} values, too many for a condition of {text} bytes: write a shorter one"
            ));
        }
        evaluate(&self.expression, "object", object)
    }
}

/// How many values a value is made of; no further than a bound.
fn values(value: &serde_json::Value, most: usize) -> usize {
    let sum = |inner: &mut dyn Iterator<Item = &serde_json::Value>| {
        inner.fold(1, |count, value| if count >= most { count } else { count + values(value, most - count) })
    };
    match value {
        serde_json::Value::Array(list) => sum(&mut list.iter()),
        serde_json::Value::Object(map) => sum(&mut map.values()),
        _ => 1,
    }
}

/// The library's parser and interpreter are not ours: should one of them panic, this condition is to blame and no other
/// object.
fn shielded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| stacker::grow(STACK, work))).ok()
}

/// Refuses what lies too deeply in one another before the parser sees it, and the ways of quoting that would hide it. Two
/// equal signs in a row as well: the parser takes an even number of them for one, and reads what follows twice.
fn check_depth(text: &str) -> Result<(), ConditionError> {
    if text.contains('\\') || text.contains("'''") || text.contains("\"\"\"") {
        return refuse("neither a backslash nor triple quotes can be in a condition; there are '…' and \"…\"");
    }
    // Of the last letter, and of the last one that is no blank.
    let (mut quote, mut before, mut sign) = (None, ' ', ' ');
    let (mut depth, mut choices) = (0_usize, 0_usize);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '/') if before == '/' => return refuse("a condition has no comments"),
            (None, '!' | '-') if letter == sign => {
                return refuse("two of the signs ! or - cannot follow each other: write !(!x), -(-x), a - (-b)");
            }
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '?') => choices += 1,
            (None, _) => {}
        }
        before = letter;
        if !letter.is_whitespace() {
            sign = letter;
        }
        if depth > MAX_BRACKETS || choices > MAX_BRACKETS {
            return refuse("the expression is nested too deeply");
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Expression, ConditionError> {
    let length = text.chars().count();
    if length > MAX_CONDITION {
        return Err(ConditionError::TooLong(length));
    }
    check_depth(text)?;
    let parsed = shielded(|| Parser::new().parse(text));
    let Some(parsed) = parsed else { return Err(ConditionError::Syntax("it cannot be read".to_owned())) };
    parsed.map_err(|errors| {
        let first = errors.errors.first();
        let words = first.map(|error| format!("line {}, column {}: {}", error.pos.0, error.pos.1, error.msg));
        ConditionError::Syntax(words.unwrap_or_else(|| "it cannot be read".to_owned()))
    })
}

fn evaluate(expression: &Expression, name: &str, value: &impl Serialize) -> Result<bool, String> {
    let run = || {
        let value = cel::to_value(value).map_err(|error| error.to_string())?;
        let mut context = Context::default();
        context.add_variable_from_value(name, value);
        match context.resolve(expression) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("the result is of type {}, and must be true or false", other.type_of())),
            Err(ExecutionError::NoSuchKey(key)) => {
                Err(format!("there is no '{key}' (has(…) or 'name' in … tells whether there is)"))
            }
            Err(error) => Err(error.to_string()),
        }
    };
    shielded(run).unwrap_or_else(|| Err("it cannot be evaluated".to_owned()))
}

/// Where in an expression a node stands: decides what may be said about a dependency there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its value is used as a whole.
    Value,
    /// A field or element of it is read, or asked for.
    Inside,
}

/// What a node is, as far as dependencies go.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Root,
    Dependency,
    Phase,
    Outputs,
    Output,
    Other,
}

/// A walk over an expression that refuses what is not of the bounded part.
struct Reading<'a> {
    root: &'static str,
    /// Names of the dependencies; `None`: the root is one object.
    dependencies: Option<&'a [&'a str]>,
    /// Variable of the macro that is being read.
    bound: BTreeSet<String>,
}

fn refuse<T>(words: impl Into<String>) -> Result<T, ConditionError> {
    Err(ConditionError::NotAllowed(words.into()))
}

impl Reading<'_> {
    fn expression(&mut self, expression: &IdedExpr, depth: usize) -> Result<(), ConditionError> {
        self.node(expression, Place::Value, depth).map(|_| ())
    }

    fn node(&mut self, node: &IdedExpr, place: Place, depth: usize) -> Result<Kind, ConditionError> {
        let Some(depth) = depth.checked_sub(1) else { return refuse("the expression is nested too deeply") };
        let kind = match &node.expr {
            Expr::Ident(name) => self.variable(name)?,
            Expr::Select(select) => {
                let inner = self.node(&select.operand, Place::Inside, depth)?;
                self.member(&inner, Some(&select.field))?
            }
            Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                let inner = self.node(&call.args[0], Place::Inside, depth)?;
                self.expression(&call.args[1], depth)?;
                self.member(&inner, literal(&call.args[1]))?
            }
            Expr::Call(call) => {
                let known = FUNCTIONS.contains(&call.func_name.as_str()) || is_operator(&call.func_name);
                if !known {
                    let names = FUNCTIONS.join(", ");
                    return refuse(format!("function '{}' is not available; there are {names}", call.func_name));
                }
                let asks = [operators::IN, "size"].contains(&call.func_name.as_str());
                for argument in call.target.iter().map(Box::as_ref).chain(&call.args) {
                    self.node(argument, if asks { Place::Inside } else { Place::Value }, depth)?;
                }
                Kind::Other
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.expression(element, depth))?;
                Kind::Other
            }
            Expr::Literal(_) => Kind::Other,
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth)?,
            Expr::Map(_) | Expr::Struct(_) => return refuse("maps and messages cannot be written in a condition"),
            Expr::Unspecified => return refuse("the expression is not complete"),
        };
        let whole = place == Place::Value;
        match kind {
            Kind::Root if whole && self.dependencies.is_some() => {
                refuse("'steps' must be followed by the name of a dependency: steps.NAME or steps['NAME']")
            }
            Kind::Dependency if whole => refuse("a step must be followed by .phase or .outputs"),
            Kind::Outputs if whole => refuse("outputs is a map: name the output, or ask with 'name' in or has()"),
            kind => Ok(kind),
        }
    }

    fn variable(&self, name: &str) -> Result<Kind, ConditionError> {
        if self.bound.contains(name) || name == "@result" {
            return Ok(Kind::Other);
        }
        if name == self.root {
            return Ok(if self.dependencies.is_some() { Kind::Root } else { Kind::Other });
        }
        refuse(format!("'{name}' is not known; a condition reads '{}'", self.root))
    }

    /// What a field or element of something is.
    fn member(&self, of: &Kind, name: Option<&str>) -> Result<Kind, ConditionError> {
        match (of, name) {
            (Kind::Root, Some(name)) => self.dependency(name),
            (Kind::Root, None) => refuse("the name of a step must be written as it is: steps['NAME']"),
            (Kind::Dependency, Some("phase")) => Ok(Kind::Phase),
            (Kind::Dependency, Some("outputs")) => Ok(Kind::Outputs),
            (Kind::Dependency, other) => {
                let other = other.unwrap_or("an element");
                refuse(format!("a step has phase and outputs, not {other}"))
            }
            (Kind::Outputs, _) => Ok(Kind::Output),
            (Kind::Phase | Kind::Output, _) => refuse("phases and outputs are texts: they have no fields"),
            (Kind::Other, _) => Ok(Kind::Other),
        }
    }

    fn dependency(&self, name: &str) -> Result<Kind, ConditionError> {
        let known = self.dependencies.unwrap_or_default();
        if known.contains(&name) {
            return Ok(Kind::Dependency);
        }
        // `steps.web-0` is a difference to CEL.
        let dashed = known.iter().find(|known| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
        let hint = dashed.map_or_else(
            || hint(name, known.iter().copied()),
            |dashed| format!(" (a name with a dash is written steps['{dashed}'])"),
        );
        Err(ConditionError::NoDependency { step: name.to_owned(), hint })
    }

    fn comprehension(&mut self, loop_: &ComprehensionExpr, depth: usize) -> Result<Kind, ConditionError> {
        if matches!(loop_.accu_init.expr, Expr::List(_)) {
            return refuse("map and filter are not available; there are all, exists and exists_one");
        }
        if !self.bound.is_empty() {
            return refuse("all, exists and exists_one cannot be nested");
        }
        if loop_.iter_var == self.root {
            return refuse(format!("'{}' cannot be the variable of a macro", self.root));
        }
        if has_loop(&loop_.iter_range) {
            return refuse("all, exists and exists_one cannot be nested");
        }
        self.expression(&loop_.iter_range, depth)?;
        self.bound.insert(loop_.iter_var.clone());
        let body = self.expression(&loop_.loop_step, depth);
        self.bound.clear();
        body.map(|()| Kind::Other)
    }
}

/// Whether a list over which a macro runs comes from another macro.
fn has_loop(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Comprehension(_) => true,
        Expr::Select(select) => has_loop(&select.operand),
        Expr::Call(call) => call.target.iter().map(Box::as_ref).chain(&call.args).any(has_loop),
        Expr::List(list) => list.elements.iter().any(has_loop),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

fn literal(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn is_operator(name: &str) -> bool {
    [
        operators::CONDITIONAL,
        operators::LOGICAL_AND,
        operators::LOGICAL_OR,
        operators::LOGICAL_NOT,
        operators::SUBSTRACT,
        operators::ADD,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::EQUALS,
        operators::NOT_EQUALS,
        operators::GREATER_EQUALS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::LESS,
        operators::NEGATE,
        operators::NOT_STRICTLY_FALSE,
        operators::IN,
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> BTreeMap<String, String> {
        BTreeMap::from([("address".to_owned(), "10.0.0.7".to_owned()), ("port-a".to_owned(), "80".to_owned())])
    }

    fn asked(text: &str) -> Result<bool, String> {
        let when = When::new(text, &["web-0", "db"]).unwrap_or_else(|error| panic!("{text}: {error}"));
        let (outputs, old) = (outputs(), BTreeMap::from([("address".to_owned(), "old".to_owned())]));
        when.holds([("web-0", StepPhase::Succeeded, &outputs), ("db", StepPhase::Skipped, &old)].into_iter())
    }

    fn refused(text: &str) -> String {
        When::new(text, &["web-0", "db"]).unwrap_err().to_string()
    }

    #[test]
    fn phases_and_outputs_of_dependencies_can_be_read_with_and_without_a_dash_in_the_name() {
        for (text, holds) in [
            ("steps['web-0'].phase == 'Succeeded'", true),
            ("steps.db.phase == 'Skipped' && steps['db'].phase != 'Succeeded'", true),
            ("steps['web-0'].outputs.address.startsWith('10.')", true),
            ("steps['web-0'].outputs['port-a'] == '80' && int(steps['web-0'].outputs['port-a']) > 79", true),
            ("has(steps['web-0'].outputs.absent)", false),
            ("'address' in steps['web-0'].outputs && size(steps['web-0'].outputs) == 2", true),
            ("['Failed', 'Skipped'].exists(p, p == steps.db.phase)", true),
            ("steps.db.phase in ['Failed', 'Omitted'] ? true : false", false),
        ] {
            assert_eq!(asked(text), Ok(holds), "{text}");
        }
    }

    #[test]
    fn only_what_succeeded_has_outputs() {
        assert_eq!(asked("has(steps.db.outputs.address)"), Ok(false));
    }

    #[test]
    fn what_cannot_be_said_is_said() {
        let words = asked("steps['web-0'].outputs.adress == 'x'").unwrap_err();
        assert!(words.starts_with("there is no 'adress'"), "{words}");
        let words = asked("steps.db.phase").unwrap_err();
        assert_eq!(words, "the result is of type string, and must be true or false");
        let words = asked("int(steps.db.phase) > 1").unwrap_err();
        assert!(words.contains("int"), "{words}");
    }

    #[test]
    fn what_a_condition_may_not_say_is_found_before_anything_runs() {
        for (text, words) in [
            ("steps.web-0.phase == 'x'", "'web' is not among the dependencies of this step (a name with a dash is"),
            ("steps.dbb.phase == 'x'", "'dbb' is not among the dependencies of this step (did you mean 'db'?)"),
            ("steps.db.phse == 'x'", "a step has phase and outputs, not phse"),
            ("steps.db == 'x'", "a step must be followed by"),
            ("steps == 'x'", "'steps' must be followed by"),
            ("steps[steps.db.phase].phase == 'x'", "must be written as it is"),
            ("steps.db.outputs.all(k, k == 'x')", "outputs is a map"),
            ("steps.db.outputs.x.y == 'x'", "they have no fields"),
            ("step.db.phase == 'x'", "'step' is not known; a condition reads 'steps'"),
            ("steps.db.phase.matches('(a*)*b')", "function 'matches' is not available"),
            ("['x'].map(x, x + x).size() > 1", "map and filter are not available"),
            ("[1].all(x, [2].all(y, x == y))", "cannot be nested"),
            ("[[1].all(y, y == 1)].all(x, x)", "cannot be nested"),
            ("{'a': 1}.a == 1", "cannot be written"),
            ("Foo{a: 1} == 1", "cannot be written"),
            ("steps.db.phase ==", "not a CEL expression: line 1, column"),
            ("", "not a CEL expression"),
            (&"(".repeat(1024), "nested too deeply"),
            (&"(".repeat(16), "not a CEL expression"),
            (&format!("{}1", "true ? 1 : ".repeat(20)), "nested too deeply"),
            (&"!".repeat(1024), "cannot follow each other"),
            (&format!("{}'))))))'{}", "(".repeat(12), "(".repeat(12)), "nested too deeply"),
            ("'\\'' == 'x'", "neither a backslash"),
            ("true // ' \n && true", "no comments"),
            ("!!true", "write !(!x)"),
            ("! \n !true", "write !(!x)"),
            ("--1 == 1", "write !(!x)"),
            ("1 - -1 == 2", "a - (-b)"),
            (&format!("1{} == 1", "+1".repeat(300)), "nested too deeply"),
            (&format!("{}1{} == 1", "[".repeat(60), "]".repeat(60)), "nested too deeply"),
            (&"x".repeat(1025), "1025 characters are more than the 1024"),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn a_condition_over_an_object_reads_its_lists() {
        let object = serde_json::json!({
            "metadata": {"name": "heron", "generation": 2},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 2},
        });
        for (text, holds) in [
            ("object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')", true),
            ("object.status.observedGeneration == object.metadata.generation", true),
            ("has(object.status.addresses) && size(object.status.addresses) > 0", false),
        ] {
            assert_eq!(ObjectCondition::new(text).unwrap().holds(&object), Ok(holds), "{text}");
        }
        let dear = ObjectCondition::new("object.spec.parameters.a.exists(x, x > 1)").unwrap();
        let of = |count: usize| serde_json::json!({"spec": {"parameters": {"a": vec![0; count]}}});
        assert_eq!(dear.holds(&of(40_000)), Ok(false));
        assert!(dear.holds(&of(95_000)).unwrap_err().contains("too many for a condition of 41 bytes"));
        let early = ObjectCondition::new("object.status.conditions.exists(c, c.type == 'Ready')").unwrap();
        assert!(early.holds(&serde_json::json!({"metadata": {}})).is_err());
        assert!(ObjectCondition::new("steps.db.phase == 'x'").is_err());
    }
}
