//! CUDA graphs: launches captured once and repeated at one call.

use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstream, CUstreamCaptureMode};

use super::context::Context;
use crate::device::gpu::Graph;
use crate::error::Result;

/// An instantiated graph.
pub struct Captured {
    context: Arc<Context>,
    raw: CUgraphExec,
}

// SAFETY: the driver API may be called from any thread.
unsafe impl Send for Captured {}
// SAFETY: as above; launches of a graph in one stream follow each other.
unsafe impl Sync for Captured {}

impl Captured {
    /// What `launches` puts into the stream that it is given, which is one of its own, so that others may go on with theirs.
    pub fn new(context: &Arc<Context>, launches: impl FnOnce(CUstream) -> Result<()>) -> Result<Captured> {
        let stream = context.new_stream()?;
        let graph = capture(context, stream, launches);
        context.give_back(|| {
            // SAFETY: the capture has ended, and nothing ran in this stream.
            unsafe { sys::cuStreamDestroy_v2(stream) };
        });
        let graph = graph?;
        let mut raw = null_mut();
        // SAFETY: the graph lives; the driver writes one pointer. The graph is not needed once it is instantiated.
        let answer = unsafe {
            let answer = sys::cuGraphInstantiateWithFlags(&mut raw, graph, 0);
            sys::cuGraphDestroy(graph);
            answer
        };
        context.faults.check("cuGraphInstantiateWithFlags", answer)?;
        Ok(Captured { context: context.clone(), raw })
    }
}

fn capture(context: &Context, stream: CUstream, launches: impl FnOnce(CUstream) -> Result<()>) -> Result<CUgraph> {
    // This thread makes no call that a capture forbids; what other threads do is no concern of it.
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream lives.
    context.faults.check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })?;
    let launched = launches(stream);
    let mut graph = null_mut();
    // SAFETY: ended whatever happened; the driver writes one pointer.
    let answer = unsafe { sys::cuStreamEndCapture(stream, &mut graph) };
    let ended = context.faults.check("cuStreamEndCapture", answer);
    if launched.is_err() && !graph.is_null() {
        // SAFETY: nobody else has it.
        unsafe { sys::cuGraphDestroy(graph) };
    }
    launched.and(ended).map(|()| graph)
}

impl Graph for Captured {
    fn replay(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: graph and stream live; the addresses in the graph are those of an arena that the caller holds.
        let answer = unsafe { sys::cuGraphLaunch(self.raw, self.context.stream()) };
        self.context.faults.check("cuGraphLaunch", answer)
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.context.give_back(|| {
            // SAFETY: a launch under way is waited for.
            unsafe {
                sys::cuStreamSynchronize(self.context.stream());
                sys::cuGraphExecDestroy(self.raw);
            }
        });
    }
}
