//! The ports of a datapath by number: an immutable snapshot that PMD threads read.

use crate::capture::{Capture, Direction};
use flow::DpPort;
use packet::{Burst, Set};
use port::Port;
use qos::Policer;
use std::sync::Arc;

/// Ports by datapath port number.
#[derive(Clone, Default)]
pub struct PortMap(Vec<Option<Place>>);

/// A port, and what is to be done with its packets besides.
#[derive(Clone)]
struct Place {
    port: Arc<dyn Port>,
    extras: Option<Box<Extras>>,
}

/// What few ports have. Whether one has any of it is all that the others are asked.
#[derive(Clone, Default)]
pub(crate) struct Extras {
    policer: Option<Arc<Policer>>,
    captures: Vec<Arc<Capture>>,
}

impl Extras {
    /// Which packets of a burst that the port has received may go on. Those who watch see all.
    #[inline(never)]
    pub(crate) fn receive(&self, burst: &mut Burst<'_>, thread: usize) -> Set {
        let all = Set::range(0, burst.len());
        for capture in &self.captures {
            capture.take(burst, all, Direction::In, thread);
        }
        self.policer.as_ref().map_or(all, |p| p.receive(burst))
    }

    /// Which of these packets the port may send. Those who watch see what it will be given.
    #[inline(never)]
    pub(crate) fn send(&self, burst: &mut Burst<'_>, set: Set, thread: usize) -> Set {
        let set = self.policer.as_ref().map_or(set, |p| p.send(burst, set));
        for capture in &self.captures {
            capture.take(burst, set, Direction::Out, thread);
        }
        set
    }
}

impl PortMap {
    /// Puts `port` at `number`, replacing what was there, without limits
    /// and watched by nobody.
    pub fn set(&mut self, number: DpPort, port: Option<Arc<dyn Port>>) {
        let i = number.0 as usize;
        if self.0.len() <= i {
            self.0.resize(i + 1, None);
        }
        self.0[i] = port.map(|port| Place { port, extras: None });
    }

    /// Limits the port with this number, if there is one.
    pub fn police(&mut self, number: DpPort, policer: Option<Arc<Policer>>) {
        self.change(number, |extras| extras.policer = policer);
    }

    /// Has these watch the port with this number, if there is one, and no others.
    pub fn capture(&mut self, number: DpPort, captures: Vec<Arc<Capture>>) {
        self.change(number, |extras| extras.captures = captures);
    }

    fn change(&mut self, number: DpPort, change: impl FnOnce(&mut Extras)) {
        if let Some(Some(place)) = self.0.get_mut(number.0 as usize) {
            let mut extras = place.extras.take().unwrap_or_default();
            change(&mut extras);
            let any = extras.policer.is_some() || !extras.captures.is_empty();
            place.extras = any.then_some(extras);
        }
    }

    /// The port with this number.
    #[inline(always)]
    pub fn get(&self, number: DpPort) -> Option<&dyn Port> {
        Some(&*self.0.get(number.0 as usize)?.as_ref()?.port)
    }

    /// The port with this number, and what it has besides.
    #[inline(always)]
    pub(crate) fn with_extras(&self, number: DpPort) -> Option<(&dyn Port, Option<&Extras>)> {
        let place = self.0.get(number.0 as usize)?.as_ref()?;
        Some((&*place.port, place.extras.as_deref()))
    }

    /// One more than the highest number in use.
    pub fn end(&self) -> usize {
        self.0.len()
    }
}
