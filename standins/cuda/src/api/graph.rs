//! Graphs: <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html>.

use crate::codes::{CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUresult, CudaResult};
use crate::cupti::{Call, Params, traced};
use crate::driver::Driver;
use crate::entry::call;
use crate::event::EventState;
use crate::ffi::Out;
use crate::graph::{GraphExec, Node, NodeKind};
use crate::marker::Marker;
use crate::types::{CUgraph, CUgraphExec, CUstream};
use std::sync::Arc;

impl Driver {
    /// Each node gets a queue of its own, so that only the dependencies of the graph order its
    /// nodes.
    fn launch(&mut self, exec: CUgraphExec, stream: usize) -> CudaResult {
        let context = self.check_stream(stream)?;
        let (nodes, last) = match self.execs.get(exec) {
            Ok(exec) => (exec.nodes.clone(), exec.last.clone()),
            Err(why) => return Err(self.bad_handle("graph exec", exec, why)),
        };
        if let Some((capture, before)) = self.capture_of(stream) {
            return self.launch_in_capture(stream, capture, &before, nodes);
        }
        let mut start = self.implicit_dependencies(stream)?;
        start.extend(self.stream_ref(stream)?.last.clone());
        start.extend(last);
        let mut markers: Vec<Arc<Marker>> = Vec::new();
        for node in &nodes {
            let mut dependencies = start.clone();
            let earlier = node.dependencies.iter();
            dependencies.extend(earlier.map(|&earlier| markers[earlier].clone()));
            markers.push(self.launch_node(node, dependencies)?);
        }
        let waits = markers.iter().map(Marker::wait).collect();
        let end = self.submit(stream, waits, None)?;
        context.sticky_error.check()?;
        if let Ok(exec) = self.execs.get_mut(exec) {
            exec.last = Some(end);
        }
        Ok(())
    }

    fn launch_node(
        &self,
        node: &Node,
        mut dependencies: Vec<Arc<Marker>>,
    ) -> CudaResult<Arc<Marker>> {
        let context = &node.context;
        let (commands, query) = match &node.kind {
            NodeKind::Work(work) => (self.commands(context, work)?, None),
            NodeKind::Record(event) => (Vec::new(), event.new_query()?),
            NodeKind::Wait(event) => {
                if let EventState::Recorded(marker) = event.state() {
                    dependencies.push(marker);
                }
                (Vec::new(), None)
            }
        };
        let queue = context.device.new_queue();
        let queue = queue.map_err(|error| context.code_of(&error))?;
        let marker = context.submit_to(&queue, &dependencies, commands, query)?;
        if let NodeKind::Record(event) = &node.kind {
            event.set_state(EventState::Recorded(marker.clone()));
        }
        Ok(marker)
    }

    fn launch_in_capture(
        &mut self,
        stream: usize,
        capture: u64,
        before: &[usize],
        nodes: Vec<Node>,
    ) -> CudaResult {
        self.check_valid(capture)?;
        let Some(into) = self.captures.get_mut(&capture).map(|c| &mut c.nodes) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        };
        let first = into.len();
        let added = first..first + nodes.len();
        for mut node in nodes {
            let dependencies = &mut node.dependencies;
            dependencies.iter_mut().for_each(|index| *index += first);
            if dependencies.is_empty() {
                *dependencies = before.to_vec();
            }
            into.push(node);
        }
        if !added.is_empty() {
            self.set_dependencies(stream, capture, added.collect());
        }
        Ok(())
    }
}

/// Creates an executable graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(
    exec: Out<'_, CUgraphExec>,
    graph: CUgraph,
    _flags: u64,
) -> CUresult {
    call("cuGraphInstantiateWithFlags", |driver| {
        let exec = exec.required()?;
        let nodes = match driver.graphs.get(graph) {
            Ok(nodes) => nodes.clone(),
            Err(why) => return Err(driver.bad_handle("graph", graph, why)),
        };
        exec.put(driver.execs.insert(GraphExec { nodes, last: None }));
        Ok(())
    })
}

/// Launches an executable graph in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    traced(Call::GraphLaunch, &Params(exec, stream, ()), None, || {
        call("cuGraphLaunch", |driver| {
            let stream = driver.stream_key(stream)?;
            driver.launch(exec, stream)
        })
    })
}

/// Destroys an executable graph. A launch in progress is not affected.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: CUgraphExec) -> CUresult {
    call("cuGraphExecDestroy", |driver| {
        let removed = driver.execs.remove(exec, driver.recycle);
        removed
            .map(drop)
            .map_err(|why| driver.bad_handle("graph exec", exec, why))
    })
}

/// Destroys a graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: CUgraph) -> CUresult {
    call("cuGraphDestroy", |driver| {
        let removed = driver.graphs.remove(graph, driver.recycle);
        removed
            .map(drop)
            .map_err(|why| driver.bad_handle("graph", graph, why))
    })
}
