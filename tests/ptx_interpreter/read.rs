//! Reads a module's text: its directives, and the instructions of its entries.

use std::collections::HashMap;

use super::decode::decode;
use super::entry::{Entry, Instruction, Param, Preset, SHARED_BASE};
use super::modifiers::Modifiers;
use super::number::Ty;
use super::op::Op;
use super::operand::{Base, Names, Operand, operand, split};
use super::{Fault, Kind, Result, fault};

/// What a text holds.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub version: String,
    pub target: String,
    pub entries: Vec<Entry>,
}

impl Module {
    /// Reads a module.
    pub fn read(text: &str) -> Result<Module> {
        let plain = without_comments(text);
        let mut reader = Reader { text: &plain, at: 0, module: Module::default(), entry: Entry::default(), ..Reader::default() };
        reader.entry.shared_end = SHARED_BASE;
        let result = reader.module();
        let line = plain[..reader.start.min(plain.len())].matches('\n').count() + 1;
        let statement = plain[reader.start.min(plain.len())..].lines().next().unwrap_or("").trim().to_string();
        result.map_err(|f| f.at(line, &statement))?;
        Ok(reader.module)
    }

    pub fn entry(&self, name: &str) -> Result<&Entry> {
        match self.entries.iter().find(|e| e.name == name) {
            Some(entry) => Ok(entry),
            None => fault(Kind::Syntax, format!("there is no entry {name}")),
        }
    }
}

/// Comments become blanks, lines stay.
fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        out += &rest[..at];
        let long = rest[at..].starts_with("/*");
        let end = if long { rest[at..].find("*/").map(|n| n + 2) } else { rest[at..].find('\n') };
        let comment = &rest[at..at + end.unwrap_or(rest.len() - at)];
        out.extend(comment.chars().filter(|c| *c == '\n'));
        rest = &rest[at + comment.len()..];
    }
    out + rest
}

/// What is being read. Names of registers and labels are those of the open blocks, the innermost first.
#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Of the statement.
    start: usize,
    module: Module,
    entry: Entry,
    variables: HashMap<String, Base>,
    outer_variables: HashMap<String, Base>,
    registers: Vec<HashMap<String, usize>>,
    labels: Vec<HashMap<String, usize>>,
    /// Of each label: its instruction, once it stands, its name, and the blocks where a jump to it stands.
    targets: Vec<(Option<usize>, String, Vec<usize>)>,
    /// Numbers of the open blocks, and how many there were.
    open: Vec<usize>,
    blocks: usize,
    line_at: (usize, usize),
}

impl Names for Reader<'_> {
    fn register(&self, name: &str) -> Option<usize> {
        self.registers.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    fn variable(&self, name: &str) -> Option<Base> {
        self.variables.get(name).or_else(|| self.outer_variables.get(name)).copied()
    }

    fn label(&mut self, name: &str) -> usize {
        if let Some(label) = self.labels.iter().rev().find_map(|scope| scope.get(name)) {
            return *label;
        }
        // It does not stand yet: this block or one around it may still place it.
        self.targets.push((None, name.into(), self.open.clone()));
        self.targets.len() - 1
    }
}

fn bad<T>(what: impl Into<String>) -> Result<T> {
    fault(Kind::Syntax, what)
}

impl<'a> Reader<'a> {
    fn blank(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// The text up to one of the ends, which is passed over too.
    fn until(&mut self, end: &str) -> Result<&'a str> {
        let rest = &self.text[self.at..];
        match rest.find(|c| end.contains(c)) {
            Some(n) => {
                self.at += n + 1;
                Ok(rest[..n].trim())
            }
            None => bad(format!("one of \"{end}\" is missing")),
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        self.blank();
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn module(&mut self) -> Result<()> {
        loop {
            self.blank();
            self.start = self.at;
            if self.at == self.text.len() {
                return Ok(());
            } else if self.eat(".version") {
                self.module.version = self.until("\n")?.into();
            } else if self.eat(".target") {
                self.module.target = self.until("\n")?.into();
            } else if self.eat(".address_size") {
                let size = self.until("\n")?;
                if size != "64" {
                    return bad("addresses have 64 bits");
                }
            } else if self.eat(".visible") || self.eat(".weak") {
            } else if self.eat(".entry") {
                self.kernel()?;
            } else if self.text[self.at..].starts_with(".extern") || self.text[self.at..].starts_with(".shared") {
                let statement = self.until(";")?;
                self.shared(statement)?;
            } else if self.text[self.at..].starts_with(".const") {
                let statement = self.until(";")?;
                let (name, at) = super::constants::declare(statement, &mut self.entry.constants)?;
                self.variables.insert(name, Base::Const(at));
            } else {
                let word = self.text[self.at..].split_whitespace().next().unwrap_or("");
                return bad(format!("the unknown directive {word}"));
            }
        }
    }

    /// `[.extern] .shared [.align N] .type name[N]`
    fn shared(&mut self, statement: &str) -> Result<()> {
        let (mut align, mut element, mut dynamic) = (0, 1, false);
        let mut words = statement.split_whitespace();
        let mut name = "";
        while let Some(word) = words.next() {
            match word {
                ".extern" => dynamic = true,
                ".shared" => {}
                ".align" => align = words.next().and_then(|n| n.parse().ok()).unwrap_or(0),
                _ => match word.strip_prefix('.') {
                    Some(ty) => element = Ty::named(ty).map_or(1, Ty::bytes) as u64,
                    None => name = word,
                },
            }
        }
        let (name, count) = match name.split_once('[') {
            Some((name, n)) => (name, n.trim_end_matches(']')),
            None => (name, "1"),
        };
        let align: u64 = if align == 0 { element } else { align };
        if name.is_empty() || self.entry.dynamic_at.is_some() {
            return bad("shared variables stand before the dynamic one, each with a name");
        }
        let at = self.entry.shared_end.next_multiple_of(align);
        match count.parse::<u64>() {
            Ok(n) if !dynamic => self.entry.shared_end = at + n * element,
            _ if dynamic && count.is_empty() => {
                self.entry.dynamic_at = Some(at);
                self.entry.shared_end = at;
            }
            _ => return bad("the variable has no size"),
        }
        self.variables.insert(name.into(), Base::Shared(at));
        Ok(())
    }

    fn kernel(&mut self) -> Result<()> {
        let outer = self.entry.clone();
        self.outer_variables = self.variables.clone();
        self.entry.name = self.until("(")?.into();
        let params = self.until(")")?;
        for param in params.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            self.param(param)?;
        }
        let head = self.until("{")?.replace(',', " ");
        (self.entry.cluster, self.entry.cluster_extents) = (1, [1; 3]);
        let mut words = head.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let mut extents = Vec::new();
            while let Some(n) = words.peek().and_then(|w| w.parse::<u32>().ok()) {
                extents.push(n);
                words.next();
            }
            let product = extents.iter().product();
            match word {
                ".maxntid" => self.entry.threads = Some((product, false)),
                ".reqntid" => self.entry.threads = Some((product, true)),
                ".reqnctapercluster" => {
                    extents.resize(3, 1);
                    self.entry.cluster = product;
                    self.entry.cluster_extents = [extents[0], extents[1], extents[2]];
                }
                ".minnctapersm" | ".maxnreg" | ".explicitcluster" | ".maxclusterrank" => {}
                _ => return bad(format!("the unknown directive {word}")),
            }
        }
        self.targets.clear();
        (self.registers, self.labels, self.open) = (vec![HashMap::new()], vec![HashMap::new()], vec![0]);
        self.line_at = (0, 1);
        while !self.registers.is_empty() {
            self.statement()?;
        }
        self.finish()?;
        self.module.entries.push(std::mem::replace(&mut self.entry, outer));
        self.variables = std::mem::take(&mut self.outer_variables);
        Ok(())
    }

    /// `.param [.align N] .type name` or `name[N]`, or `.param .u64 .ptr .global .align 16 name`.
    fn param(&mut self, text: &str) -> Result<()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ty = words.iter().skip(1).find_map(|w| Ty::named(w.trim_start_matches('.')));
        let (Some(".param"), Some(name), Some(ty)) = (words.first().copied(), words.last(), ty) else {
            return bad(format!("{text} is no parameter"));
        };
        let (name, count) = match name.split_once('[') {
            Some((name, n)) => (name, n.trim_end_matches(']').parse::<usize>().ok()),
            None => (*name, Some(1)),
        };
        let Some(count) = count else { return bad(format!("{name} has no size")) };
        let align = words.iter().position(|w| *w == ".align").and_then(|i| words[i + 1].parse().ok());
        let offset = self.entry.param_bytes.next_multiple_of(align.unwrap_or(0).max(ty.bytes()));
        self.entry.param_bytes = offset + ty.bytes() * count;
        self.variables.insert(name.into(), Base::Param(offset as u64));
        self.entry.params.push(Param { name: name.into(), offset, size: ty.bytes() * count });
        Ok(())
    }

    fn statement(&mut self) -> Result<()> {
        self.blank();
        self.start = self.at;
        let rest = &self.text[self.at..];
        if self.eat("{") {
            self.registers.push(HashMap::new());
            self.labels.push(HashMap::new());
            self.blocks += 1;
            self.open.push(self.blocks);
            return Ok(());
        }
        if self.eat("}") {
            self.registers.pop();
            self.labels.pop();
            self.open.pop();
            return Ok(());
        }
        let word = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).next().unwrap_or("");
        let after = rest[word.len()..].trim_start();
        if !word.is_empty() && after.starts_with(':') && !after.starts_with("::") {
            self.until(":")?;
            return self.place(word);
        }
        let statement = self.until(";")?;
        if statement.is_empty() || statement.starts_with(".pragma") {
            return Ok(());
        }
        if let Some(declared) = statement.strip_prefix(".reg") {
            return self.declare(declared.trim());
        }
        if statement.starts_with(".shared") {
            return self.shared(statement);
        }
        self.instruction(statement)
    }

    fn place(&mut self, label: &str) -> Result<()> {
        let here = self.entry.code.len();
        let block = self.open.last().copied().unwrap_or(0);
        for target in self.targets.iter_mut().filter(|t| t.0.is_none() && t.1 == label && t.2.contains(&block)) {
            target.0 = Some(here);
        }
        self.targets.push((Some(here), label.into(), Vec::new()));
        let number = self.targets.len() - 1;
        let scope = self.labels.len() - 1;
        match self.labels[scope].insert(label.into(), number) {
            Some(_) => bad(format!("the label {label} stands twice in a block")),
            None => Ok(()),
        }
    }

    fn declare(&mut self, text: &str) -> Result<()> {
        let (ty, names) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let Some(ty) = Ty::named(ty.trim_start_matches('.')) else { return bad(format!("{ty} is no type")) };
        for name in split(names) {
            let all: Vec<String> = match name.strip_suffix('>').and_then(|n| n.split_once('<')) {
                Some((stem, n)) => match n.parse::<usize>() {
                    Ok(n) => (0..n).map(|i| format!("{stem}{i}")).collect(),
                    Err(_) => return bad(format!("{name} has no count")),
                },
                None => vec![name.into()],
            };
            for name in all {
                self.entry.registers.push(ty.bits());
                self.entry.register_names.push(name.clone());
                if let Some(scope) = self.registers.last_mut() {
                    scope.insert(name, self.entry.registers.len() - 1);
                }
            }
        }
        Ok(())
    }

    fn instruction(&mut self, statement: &str) -> Result<()> {
        let (mut guard, mut rest) = (None, statement);
        if let Some(guarded) = statement.strip_prefix('@') {
            let (name, after) = guarded.split_once(char::is_whitespace).unwrap_or((guarded, ""));
            let Some(r) = self.register(name.trim_start_matches('!')) else {
                return bad(format!("the predicate {name} is not declared"));
            };
            guard = Some((r, !name.starts_with('!')));
            rest = after.trim();
        }
        let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (op, count) = decode(&mut Modifiers::new(opcode))?;
        let operands = split(operands).into_iter().map(|t| operand(t, self)).collect::<Result<Vec<_>>>()?;
        if !count.contains(&operands.len()) {
            return bad(format!("{opcode} has {} operands, {count:?} are wanted", operands.len()));
        }
        let (from, line) = self.line_at;
        let line = line
            + if from == 0 {
                self.text[..self.start].matches('\n').count()
            } else {
                self.text[from..self.start].matches('\n').count()
            };
        self.line_at = (self.start, line);
        self.entry.code.push(Instruction { guard, op, operands, fast: None, line, text: statement.into() });
        Ok(())
    }

    /// Gives jumps their targets, special registers a place, and the frequent instructions their fast form.
    fn finish(&mut self) -> Result<()> {
        let mut code = std::mem::take(&mut self.entry.code);
        for i in &mut code {
            for operand in &mut i.operands {
                self.settle(operand).map_err(|f| f.at(i.line, &i.text))?;
            }
            i.fast = super::fast::compile(&i.op, &i.operands, &mut self.entry);
        }
        self.entry.asynchronous = code.iter().any(|i| matches!(i.op, Op::Wgmma(_)));
        self.entry.code = code;
        Ok(())
    }

    fn settle(&mut self, operand: &mut Operand) -> Result<()> {
        match operand {
            Operand::Label(label) => match self.targets[*label].0 {
                Some(at) => *label = at,
                None => return bad(format!("there is no label {}", self.targets[*label].1)),
            },
            Operand::Special(special) => *operand = Operand::Register(self.entry.preset(Preset::Special(*special))),
            Operand::Vector(parts) | Operand::Tensor { coordinates: parts, .. } => {
                return parts.iter_mut().try_for_each(|part| self.settle(part));
            }
            _ => {}
        }
        Ok(())
    }
}
