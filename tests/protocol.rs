//! The Open Inference Protocol's bodies: every datatype in every form, and a great many broken ones within a bound on memory.
#![cfg(feature = "serve")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use half::{bf16, f16};
use halfbyte::base::xorshift::Xorshift;
use halfbyte::serve::protocol::messages::{InferInputTensor, InferTensorContents, ModelInferRequest};
use halfbyte::serve::protocol::{
    ALLOCATED_BYTES, ALLOCATED_PER_BYTE, Fault, InferReply, InferRequest, Limits, Malformed, datatype,
};
use halfbyte::{DType, Shape, Tensor};
use prost::Message;

/// The system's allocator, which counts what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn hold(bytes: usize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: every call goes to the system's allocator as it came; the counters are plain numbers of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `work` gives, and the most bytes that it held at one time.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // So that what it frees of others' does not wrap around.
    HELD.set(1 << 40);
    MOST.set(1 << 40);
    let done = work();
    (done, MOST.get() - (1 << 40))
}

#[derive(Clone, Debug)]
enum Body {
    Http(Vec<u8>, Option<usize>),
    Grpc(Vec<u8>),
}

impl Body {
    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Body::Http(bytes, _) | Body::Grpc(bytes) => bytes,
        }
    }

    fn read(self, limits: &Limits) -> Result<InferRequest, Malformed> {
        match self {
            Body::Http(bytes, header) => InferRequest::from_http(Bytes::from(bytes), header, limits),
            Body::Grpc(bytes) => InferRequest::from_grpc(Bytes::from(bytes), limits),
        }
    }
}

fn with_binary(json: &str, binary: &[u8]) -> Body {
    Body::Http([json.as_bytes(), binary].concat(), Some(json.len()))
}

fn grpc(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Body {
    let message = ModelInferRequest { model_name: "m".into(), inputs, raw_input_contents: raw, ..Default::default() };
    Body::Grpc(message.encode_to_vec())
}

fn grpc_input(tensor: &Tensor, contents: Option<InferTensorContents>) -> InferInputTensor {
    let shape = tensor.shape().iter().map(|&d| d as i64).collect();
    InferInputTensor { name: "x".into(), datatype: datatype(tensor.dtype()).into(), shape, contents, ..Default::default() }
}

/// Two by three values of each type that JSON can say.
fn samples() -> Vec<Tensor> {
    let values = [0.0, 1.0, 1.0, 100.0, 0.5, 3.0];
    let of = |dtype| {
        let shape = [2, 3];
        match dtype {
            DType::F32 => Tensor::new(shape, &values.map(|v| v as f32)),
            DType::F16 => Tensor::new(shape, &values.map(f16::from_f64)),
            DType::BF16 => Tensor::new(shape, &values.map(bf16::from_f64)),
            DType::F64 => Tensor::new(shape, &values),
            DType::I8 => Tensor::new(shape, &[-128i8, 127, 0, 1, 2, 3]),
            DType::U8 => Tensor::new(shape, &[0u8, 255, 0, 1, 2, 3]),
            DType::I16 => Tensor::new(shape, &[i16::MIN, i16::MAX, 0, 1, 2, 3]),
            DType::U16 => Tensor::new(shape, &[0, u16::MAX, 0, 1, 2, 3]),
            DType::I32 => Tensor::new(shape, &[i32::MIN, i32::MAX, 0, 1, 2, 3]),
            DType::U32 => Tensor::new(shape, &[0, u32::MAX, 0, 1, 2, 3]),
            DType::I64 => Tensor::new(shape, &[i64::MIN, i64::MAX, 0, 1, 2, 3]),
            DType::U64 => Tensor::new(shape, &[0, u64::MAX, 0, 1, 2, 3]),
            DType::Bool => Tensor::from_raw(DType::Bool, Shape::from(shape), &[0, 1, 1, 0, 0, 1]),
        }
    };
    DType::ALL.map(|dtype| of(dtype).unwrap()).to_vec()
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    let mut typed = InferTensorContents::default();
    let integers = || tensor.to_i64().unwrap();
    match tensor.dtype() {
        DType::Bool => typed.bool_contents = integers().iter().map(|&v| v != 0).collect(),
        DType::I8 | DType::I16 | DType::I32 => typed.int_contents = integers().iter().map(|&v| v as i32).collect(),
        DType::I64 => typed.int64_contents = integers(),
        DType::U8 | DType::U16 | DType::U32 => typed.uint_contents = integers().iter().map(|&v| v as u32).collect(),
        DType::U64 => typed.uint64_contents = tensor.values::<u64>().unwrap().to_vec(),
        DType::F64 => typed.fp64_contents = tensor.to_f64(),
        _ => typed.fp32_contents = tensor.to_f64().iter().map(|&v| v as f32).collect(),
    }
    typed
}

/// The body of a reply, read as a request: outputs become inputs.
fn http_of(tensor: &Tensor, binary: bool) -> Body {
    let reply = InferReply {
        model: "m".into(),
        version: "1".into(),
        id: "seven".into(),
        outputs: vec![("x".into(), tensor.clone()), ("y".into(), tensor.clone())],
    };
    let asked = InferRequest { binary_output: binary, ..Default::default() };
    let http = reply.to_http(&asked).unwrap();
    let text = String::from_utf8(http.parts[0].to_vec()).unwrap().replace("\"outputs\"", "\"inputs\"");
    let header = http.header_bytes.map(|_| text.len());
    Body::Http([text.as_bytes(), &http.parts[1..].concat()].concat(), header)
}

#[test]
fn every_datatype_comes_back_from_every_form() {
    for tensor in samples() {
        let raw = grpc(vec![grpc_input(&tensor, None)], vec![tensor.to_shared()]);
        let typed = grpc(vec![grpc_input(&tensor, Some(contents(&tensor)))], Vec::new());
        for body in [http_of(&tensor, false), http_of(&tensor, true), raw, typed] {
            let request = body.clone().read(&Limits::default()).unwrap_or_else(|e| panic!("{tensor:?} of {body:?}: {e}"));
            assert_eq!(request.inputs[0], ("x".to_string(), tensor.clone()), "{body:?}");
        }
    }
}

#[test]
fn binary_tensors_share_the_bodys_bytes() {
    let json = r#"{"inputs":[{"name":"a","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},
        {"name":"b","datatype":"INT8","shape":[1],"data":[7]},{"name":"c","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}}],
        "outputs":[{"name":"y","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true,"timeout":2000,"mine":[1]}}"#;
    let body = Bytes::from([json.as_bytes(), bytemuck::bytes_of(&[1.5f32, -2.0]), &[1, 2, 3]].concat());
    let request = InferRequest::from_http(body.clone(), Some(json.len()), &Limits::default()).unwrap();
    assert_eq!(request.inputs[0].1.address(), body.as_ptr() as usize + json.len());
    assert_eq!(request.inputs[0].1.to_f64(), [1.5, -2.0]);
    assert_eq!(request.inputs[1].1.to_f64(), [7.0]);
    assert_eq!(request.inputs[2].1.address(), body.as_ptr() as usize + json.len() + 8);
    assert_eq!((request.binary_output, request.outputs[0].binary), (true, Some(false)));
    assert_eq!(request.timeout, Some(std::time::Duration::from_millis(2)));
}

fn refused(json: &str) -> Malformed {
    let limits = Limits { elements: 1 << 20, json_numbers: 8, json_depth: 3, ..Limits::default() };
    InferRequest::from_http(Bytes::copy_from_slice(json.as_bytes()), None, &limits).unwrap_err()
}

#[test]
fn errors_name_the_field_the_cause_and_the_cure() {
    let one = |middle: &str| format!(r#"{{"inputs":[{{"name":"x",{middle}}}]}}"#);
    let cases = [
        (r#"{"inputs":7}"#.into(), "inputs", "invalid type"),
        (r#"{"inputs":[]"#.into(), "body", "EOF"),
        (r#"{"inputs":[]} x"#.into(), "body", "trailing"),
        (one(r#""shape":[1],"data":[1]"#), "inputs[0]", "datatype"),
        (one(r#""datatype":"FLOAT","shape":[1],"data":[1]"#), "inputs[0].datatype", "FP32"),
        (one(r#""datatype":"FP32","shape":[-1],"data":[1]"#), "inputs[0].shape", "-1"),
        (one(r#""datatype":"FP32","shape":[2],"data":[1]"#), "inputs[0].data", "asks for 2"),
        (one(r#""datatype":"FP32","shape":[1],"data":["a"]"#), "inputs[0].data", "numbers"),
        (one(r#""datatype":"FP32","shape":[1]"#), "inputs[0]", "no data"),
        (
            one(r#""datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}"#),
            "inputs[0].parameters.binary_data_size",
            "0 are left",
        ),
        (r#"{"inputs":[],"parameters":{"sequence_id":3}}"#.into(), "parameters.sequence_id", "leave it out"),
    ];
    for (json, at, says) in cases {
        let error = refused(&json);
        assert!(error.at.starts_with(at) && error.to_string().contains(says), "{json}: {error}");
        assert_ne!(error.fault, Fault::TooLarge, "{json}");
    }
    let large = [
        r#""datatype":"FP32","shape":[1048577],"data":[1]"#,
        r#""datatype":"FP32","shape":[18446744073709551615,2],"data":[1]"#,
        r#""datatype":"FP32","shape":[9],"data":[1,1,1,1,1,1,1,1,1]"#,
        r#""datatype":"FP32","shape":[1,1,1,1],"data":[[[[1]]]]"#,
    ];
    for middle in large {
        assert_eq!(refused(&one(middle)).fault, Fault::TooLarge, "{middle}");
    }
    let body = Body::Http(vec![b' '; 100], None).read(&Limits { body_bytes: 99, ..Limits::default() });
    assert_eq!(body.unwrap_err().fault, Fault::TooLarge);
}

/// Reads it; panics when that takes more memory than it may. Gives the bytes held over those that are always allowed, for each of the body's.
fn read_within_bounds(body: Body, limits: &Limits) -> (bool, f64) {
    let (len, shown) = (body.clone().bytes().len(), body.clone());
    let (is_ok, most) = counted(|| body.read(limits).is_ok());
    if most > ALLOCATED_PER_BYTE * len + ALLOCATED_BYTES {
        panic!("{most} bytes held for a body of {len}: {:?}", String::from_utf8_lossy(&shown.clone().bytes()[..len.min(200)]));
    }
    (is_ok, most.saturating_sub(ALLOCATED_BYTES) as f64 / len.max(1) as f64)
}

#[test]
fn hostile_bodies_take_no_more_memory_than_they_may() {
    const N: usize = 1 << 20;
    let json = |shape: &str, datatype: &str, data: String| {
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#).into_bytes()
    };
    let varints = InferTensorContents { uint64_contents: vec![1; N], ..Default::default() };
    let numbers = grpc(vec![grpc_input(&Tensor::zeros(DType::U64, [N]).unwrap(), Some(varints))], Vec::new());
    let strings = InferTensorContents { bytes_contents: vec![Bytes::new(); N], ..Default::default() };
    let strings = grpc(vec![grpc_input(&Tensor::zeros(DType::U8, [N]).unwrap(), Some(strings))], Vec::new());
    let bodies = [
        (true, Body::Http(json(&format!("[{N}]"), "FP64", format!("[{}0]", "0,".repeat(N - 1))), None)),
        (false, Body::Http(json("[1099511627776]", "FP64", "[1]".into()), None)),
        (false, Body::Http(json(&format!("[{}1]", "1,".repeat(N)), "FP64", "[1]".into()), None)),
        (false, Body::Http(json("[1]", "FP64", "[".repeat(N)), None)),
        (false, Body::Http(format!("{{\"a\":{}", "[".repeat(N)).into_bytes(), None)),
        (
            false,
            Body::Http(format!("{{\"inputs\":[{}", r#"{"name":"","shape":[],"datatype":""},"#.repeat(N / 32)).into_bytes(), None),
        ),
        (true, Body::Http(format!(r#"{{"id":"{}","inputs":[]}}"#, r"\n".repeat(N / 2)).into_bytes(), None)),
        (false, Body::Http(format!(r#"{{"{}":1}}"#, "a".repeat(N)).into_bytes(), None)),
        (false, Body::Http(format!(r#"{{"inputs":"{}"}}"#, "a".repeat(N)).into_bytes(), None)),
        (true, numbers),
        (false, strings),
        (false, Body::Grpc([0x2a, 0].repeat(N))),
        (false, Body::Grpc([0x22, 0].repeat(N))),
        (false, Body::Grpc([0x3a, 0].repeat(N))),
    ];
    for (i, (reads, body)) in bodies.into_iter().enumerate() {
        let (is_ok, per_byte) = read_within_bounds(body, &Limits::default());
        println!("hostile body {i}: {per_byte:.1} bytes held for each");
        assert_eq!(is_ok, reads, "hostile body {i}");
    }
}

/// What is written into bodies in place of something else.
const WORDS: [&[u8]; 20] = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"\"",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"[4294967296,4294967296]",
    b"null",
    b"true",
    b"\"BYTES\"",
    b"\"FP16\"",
    b"\"data\":",
    b"\"shape\":",
    b"\"binary_data_size\":",
    b"\\u0000",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
];

fn mutate(body: &mut Body, random: &mut Xorshift) {
    let below = Xorshift::below;
    for _ in 0..=below(random, 3) {
        if let Body::Http(bytes, header) = body
            && below(random, 8) == 0
        {
            let n = below(random, bytes.len() + 9);
            *header = [None, Some(n), Some(usize::MAX)][below(random, 3)];
        }
        let choice = below(random, 6);
        let bytes = body.bytes();
        let (at, len) = (below(random, bytes.len()), bytes.len());
        let end = (at + below(random, 16)).min(len);
        match choice {
            0 if len > 0 => bytes[at] ^= 1 << below(random, 8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, WORDS[below(random, WORDS.len())].iter().copied())),
            4 => drop(bytes.splice(at..end, WORDS[below(random, WORDS.len())].iter().copied())),
            _ => {
                let copy = bytes[at..end].to_vec();
                let to = below(random, len);
                drop(bytes.splice(to..to, copy));
            }
        }
    }
}

/// A million mutations of good requests in a release build; each seed gives the same ones.
#[test]
fn broken_bodies_are_errors_within_bounds() {
    let count = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
    let count = std::env::var("HALFBYTE_FUZZ").map_or(count, |n| n.parse().unwrap());
    let mut seeds = vec![with_binary(
        r#"{"id":"a","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},{"name":"y","datatype":"INT64","shape":[2,1],"data":[[1],[2]]}],"outputs":[{"name":"z","parameters":{"binary_data":true}}]}"#,
        &[0, 0, 128, 63, 0, 0, 0, 64],
    )];
    for tensor in samples() {
        seeds.extend([http_of(&tensor, false), http_of(&tensor, true)]);
        seeds.push(grpc(vec![grpc_input(&tensor, None)], vec![tensor.to_shared()]));
        seeds.push(grpc(vec![grpc_input(&tensor, Some(contents(&tensor)))], Vec::new()));
    }
    let (mut random, mut read) = (Xorshift::new(0x5eed), 0);
    for i in 0..count {
        let mut body = seeds[i % seeds.len()].clone();
        mutate(&mut body, &mut random);
        read += usize::from(read_within_bounds(body, &Limits::default()).0);
    }
    println!("{count} mutated bodies: {read} still good, {} refused", count - read);
    assert!(read > 0 && read < count / 2);
}
