//! The packets of a trace: tracks first, then what happens on them.

use super::proto::{
    BuiltinClock, ChildTracksOrdering, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation,
    SEQ_INCREMENTAL_STATE_CLEARED, Trace, TracePacket, TrackDescriptor, TrackEvent, Type, Unit, Value,
};
use crate::escape;
use spark_trace_analysis::levels::Points;
use spark_trace_recording::Recording;

/// All packets have one writer.
const SEQUENCE: u32 = 1;
const MONOTONIC: u32 = BuiltinClock::Monotonic as u32;

pub struct Packets {
    tracks: Vec<TracePacket>,
    events: Vec<TracePacket>,
}

impl Packets {
    /// Times are those of CLOCK_MONOTONIC; the snapshot says what they are by the calendar.
    pub fn new(recording: &Recording) -> Self {
        let started = recording.target.started_ns;
        let realtime = started.checked_add_signed(recording.clock.realtime_offset_ns);
        let clocks = [(BuiltinClock::Monotonic, Some(started)), (BuiltinClock::Realtime, realtime)];
        let clocks = clocks.into_iter().filter_map(|(clock, timestamp)| {
            Some(Clock { clock_id: Some(clock as u32), timestamp: Some(timestamp?) })
        });
        let snapshot = ClockSnapshot {
            clocks: clocks.collect(),
            primary_trace_clock: Some(BuiltinClock::Monotonic.into()),
        };
        let first = TracePacket {
            clock_snapshot: Some(snapshot),
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(SEQ_INCREMENTAL_STATE_CLEARED),
            ..TracePacket::default()
        };
        Self { tracks: vec![first], events: vec![] }
    }

    /// Adds a track; its id.
    pub fn track(&mut self, descriptor: TrackDescriptor) -> u64 {
        let uuid = self.tracks.len() as u64;
        let descriptor = TrackDescriptor { uuid: Some(uuid), ..descriptor };
        self.tracks.push(TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_descriptor: Some(descriptor),
            ..TracePacket::default()
        });
        uuid
    }

    /// A track that holds others, in the order in which they are added.
    pub fn group(&mut self, name: &str) -> u64 {
        self.track(TrackDescriptor {
            name: Some(escape::line(name)),
            child_ordering: Some(ChildTracksOrdering::Explicit.into()),
            ..TrackDescriptor::default()
        })
    }

    /// A counter of bytes with its points. What is unknown has none: the level before it goes on until the next.
    pub fn counter(&mut self, parent: Option<u64>, name: &str, points: &Points) {
        let rank = i32::try_from(self.tracks.len()).unwrap_or(i32::MAX);
        let uuid = self.track(TrackDescriptor {
            name: Some(escape::line(name)),
            parent_uuid: parent,
            counter: Some(CounterDescriptor { unit: Some(Unit::SizeBytes.into()) }),
            sibling_order_rank: Some(rank),
            ..TrackDescriptor::default()
        });
        for (at_ns, bytes) in points.iter().filter_map(|(at_ns, bytes)| Some((at_ns, bytes?))) {
            let event = TrackEvent { counter_value: Some(bytes), ..event(Type::Counter) };
            self.event(uuid, at_ns, event);
        }
    }

    pub fn event(&mut self, track: u64, at_ns: u64, event: TrackEvent) {
        self.events.push(TracePacket {
            timestamp: Some(at_ns),
            timestamp_clock_id: Some(MONOTONIC),
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_event: Some(TrackEvent { track_uuid: Some(track), ..event }),
            ..TracePacket::default()
        });
    }

    /// From `from_ns` to `to_ns`; between the two what `inside` adds.
    pub fn slice(
        &mut self,
        track: u64,
        (from_ns, to_ns): (u64, u64),
        begin: TrackEvent,
        inside: impl FnOnce(&mut Self),
    ) {
        self.event(track, from_ns, TrackEvent { r#type: Some(Type::SliceBegin.into()), ..begin });
        inside(self);
        self.event(track, to_ns.max(from_ns), event(Type::SliceEnd));
    }

    pub fn finish(mut self) -> Trace {
        // Stable: what begins and ends at one time stays nested as it was added.
        self.events.sort_by_key(|packet| packet.timestamp);
        let mut packet = self.tracks;
        packet.extend(self.events);
        Trace { packet }
    }
}

pub fn event(r#type: Type) -> TrackEvent {
    TrackEvent { r#type: Some(r#type.into()), ..TrackEvent::default() }
}

/// An event with a name and what there is to say of it.
pub fn named(name: &str, category: &str, debug_annotations: Vec<DebugAnnotation>) -> TrackEvent {
    TrackEvent {
        name: Some(escape::line(name)),
        categories: vec![category.to_owned()],
        debug_annotations,
        ..event(Type::Instant)
    }
}

pub fn text(name: &str, text: &str) -> DebugAnnotation {
    note(name, Value::Text(escape::line(text)))
}

pub fn number(name: &str, number: u64) -> DebugAnnotation {
    note(name, Value::Uint(number))
}

pub fn signed(name: &str, number: i64) -> DebugAnnotation {
    note(name, Value::Int(number))
}

fn note(name: &str, value: Value) -> DebugAnnotation {
    DebugAnnotation { name: Some(escape::line(name)), value: Some(value) }
}
