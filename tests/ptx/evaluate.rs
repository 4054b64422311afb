//! Runs the PTX that formulas consist of, for one thread: registers are 64 bits, instructions are read as text.

use std::collections::HashMap;

enum Operand {
    Register(usize),
    Integer(i64),
    Real(f64),
    Bits(u64),
}

struct Instruction {
    /// Runs when this register is as said.
    guard: Option<(usize, bool)>,
    opcode: Vec<String>,
    operands: Vec<Operand>,
    target: usize,
}

/// A block of text, read once and run many times.
pub struct Block {
    instructions: Vec<Instruction>,
    registers: HashMap<String, usize>,
}

/// What is being read: declared names and labels by open block.
struct Reader {
    block: Block,
    open: Vec<usize>,
    blocks: usize,
    declared: Vec<Vec<String>>,
    labels: HashMap<(usize, String), usize>,
    jumps: Vec<(usize, Vec<usize>, String)>,
}

impl Block {
    /// Reads a text whose own registers are `outer`.
    pub fn read(text: &str, outer: &[&str]) -> Block {
        let mut reader = Reader {
            block: Block { instructions: Vec::new(), registers: HashMap::new() },
            open: vec![0],
            blocks: 1,
            declared: vec![outer.iter().map(|s| s.to_string()).collect()],
            labels: HashMap::new(),
            jumps: Vec::new(),
        };
        let plain: String = text.lines().map(|l| l.split("//").next().unwrap_or("").to_string() + "\n").collect();
        let mut rest = plain.trim();
        while !rest.is_empty() {
            rest = reader.statement(rest).trim_start();
        }
        assert_eq!(reader.open.len(), 1, "a block is left open");
        for (at, open, label) in std::mem::take(&mut reader.jumps) {
            let target = open.iter().rev().find_map(|b| reader.labels.get(&(*b, label.clone())));
            reader.block.instructions[at].target = *target.unwrap_or_else(|| panic!("no label {label}"));
        }
        reader.block
    }

    /// Runs with the given registers set and gives another's bits.
    pub fn run(&self, inputs: &[(&str, u64)], output: &str) -> u64 {
        let mut registers = vec![0u64; self.registers.len()];
        for (name, bits) in inputs {
            if let Some(&r) = self.registers.get(*name) {
                registers[r] = *bits;
            }
        }
        let (mut at, mut turns) = (0, 0);
        while let Some(i) = self.instructions.get(at) {
            at += 1;
            turns += 1;
            assert!(turns < 100_000, "the text does not end");
            if i.guard.is_some_and(|(r, want)| (registers[r] != 0) != want) {
                continue;
            }
            if i.opcode[0] == "bra" {
                at = i.target;
                continue;
            }
            let Operand::Register(d) = i.operands[0] else { panic!("{:?} writes no register", i.opcode) };
            registers[d] = super::semantics::compute(&i.opcode, &|n, ty| value(&registers, &i.operands[n], ty));
        }
        registers[self.registers[output]]
    }
}

/// An operand's bits, literals as the instruction's type wants them.
fn value(registers: &[u64], operand: &Operand, ty: &str) -> u64 {
    match (operand, ty) {
        (Operand::Register(r), _) => registers[*r],
        (Operand::Bits(b), _) => *b,
        (Operand::Real(x), "f32") => (*x as f32).to_bits().into(),
        (Operand::Real(x), _) => x.to_bits(),
        (Operand::Integer(i), "f32" | "f64") => panic!("the integer literal {i} where {ty} is wanted"),
        (Operand::Integer(i), _) => *i as u64,
    }
}

impl Reader {
    fn statement<'a>(&mut self, text: &'a str) -> &'a str {
        if let Some(rest) = text.strip_prefix('{') {
            self.open.push(self.blocks);
            self.blocks += 1;
            self.declared.push(Vec::new());
            return rest;
        }
        if let Some(rest) = text.strip_prefix('}') {
            self.open.pop();
            self.declared.pop();
            return rest;
        }
        let end = text.find([';', ':']).unwrap_or_else(|| panic!("no statement: {text}"));
        let (line, rest) = (text[..end].trim(), &text[end + 1..]);
        if text.as_bytes()[end] == b':' {
            let twice = self.labels.insert((self.open[self.open.len() - 1], line.into()), self.block.instructions.len());
            assert!(twice.is_none(), "the label {line} stands twice in a block");
        } else if let Some(names) = line.strip_prefix(".reg .") {
            let names = names.split_once(' ').unwrap().1;
            for name in names.split(',').map(str::trim) {
                let all = match name.split_once('<') {
                    Some((stem, n)) => {
                        (0..n.trim_end_matches('>').parse().unwrap()).map(|i: usize| format!("{stem}{i}")).collect()
                    }
                    None => vec![name.to_string()],
                };
                self.declared.last_mut().unwrap().extend(all);
            }
        } else {
            self.instruction(line);
        }
        rest
    }

    fn instruction(&mut self, line: &str) {
        let (guard, line) = match line.strip_prefix('@') {
            Some(rest) => {
                let (register, rest) = rest.split_once(' ').unwrap();
                let name = register.trim_start_matches('!');
                (Some((self.register(name), !register.starts_with('!'))), rest)
            }
            None => (None, line),
        };
        let (opcode, operands) = line.split_once(' ').unwrap_or_else(|| panic!("no instruction: {line}"));
        let opcode: Vec<String> = opcode.split('.').map(String::from).collect();
        let mut parsed = Vec::new();
        if opcode[0] == "bra" {
            self.jumps.push((self.block.instructions.len(), self.open.clone(), operands.trim().into()));
        } else {
            parsed = operands.split(',').map(|o| self.operand(o.trim())).collect();
        }
        self.block.instructions.push(Instruction { guard, opcode, operands: parsed, target: 0 });
    }

    fn register(&mut self, name: &str) -> usize {
        assert!(self.declared.iter().flatten().any(|d| d == name), "{name} is not declared");
        let next = self.block.registers.len();
        *self.block.registers.entry(name.into()).or_insert(next)
    }

    fn operand(&mut self, text: &str) -> Operand {
        if text.starts_with('%') {
            return Operand::Register(self.register(text));
        }
        for prefix in ["0f", "0d"] {
            if let Some(digits) = text.strip_prefix(prefix) {
                return Operand::Bits(u64::from_str_radix(digits, 16).unwrap());
            }
        }
        if let Some(digits) = text.strip_prefix("0x") {
            return Operand::Integer(i64::from_str_radix(digits, 16).unwrap());
        }
        text.parse().map(Operand::Integer).unwrap_or_else(|_| Operand::Real(text.parse().unwrap_or_else(|_| panic!("{text}"))))
    }
}
