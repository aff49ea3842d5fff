//! Reports on the arrival of every packet
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 3.1), read in place.
//!
//! Invariant: what comes out is bounded by what came in: a report cannot claim more packets than it
//! has room to say when they arrived, but for runs of lost ones, of [`STATUS_MAX`] at most.

#![deny(clippy::indexing_slicing)]

/// Packets of one report: more is none.
const STATUS_MAX: u16 = 2_048;
const HEADER_BYTES: usize = 20;
const CHUNK_BYTES: usize = 2;
const REFERENCE_US: i64 = 64_000;
const DELTA_US: i64 = 250;

/// A report that was read as far as its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrivals<'a> {
    base: u16,
    count: u16,
    reference_us: i64,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// One packet: its number, and when it arrived on the far end's clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) number: u16,
    pub(crate) arrived_us: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Lost,
    Small,
    Large,
    /// Arrived, it is not said when.
    Untimed,
}

impl Symbol {
    const fn of(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Lost,
            1 => Self::Small,
            2 => Self::Large,
            _ => Self::Untimed,
        }
    }
}

impl<'a> Arrivals<'a> {
    /// Reads a whole RTCP packet of this kind, header included.
    pub(crate) fn read(packet: &'a [u8]) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(HEADER_BYTES)?;
        let word = |at: usize| Some(u16::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let (base, count) = (word(12)?, word(14)?);
        let reference = u32::from_be_bytes(*header.get(16..)?.first_chunk()?) >> 8;
        if count == 0 || count > STATUS_MAX {
            return None;
        }
        // 24 bits with a sign.
        let reference = i64::from((reference << 8).cast_signed() >> 8);
        let mut arrivals = Self {
            base,
            count,
            reference_us: reference * REFERENCE_US,
            chunks: rest,
            deltas: &[],
        };
        let chunk_bytes = arrivals.chunk_bytes()?;
        (arrivals.chunks, arrivals.deltas) = rest.split_at_checked(chunk_bytes)?;
        Some(arrivals)
    }

    /// How many bytes say what became of all packets.
    fn chunk_bytes(&self) -> Option<usize> {
        let (mut told, mut at) = (0_u16, 0);
        while told < self.count {
            let chunk = u16::from_be_bytes(*self.chunks.get(at..)?.first_chunk()?);
            told = told.saturating_add(symbols_of(chunk).0);
            at += CHUNK_BYTES;
        }
        Some(at)
    }

    /// What became of each packet, in the order of their numbers; ends where bytes are missing.
    pub(crate) fn statuses(&self) -> Statuses<'a> {
        Statuses {
            number: self.base,
            left: self.count,
            now_us: self.reference_us,
            chunks: self.chunks,
            chunk: 0,
            in_chunk: 0,
            taken: 0,
            deltas: self.deltas,
        }
    }
}

/// How many symbols a chunk has, and which is the one at a place of it.
fn symbols_of(chunk: u16) -> (u16, impl Fn(u16) -> Symbol) {
    let is_run = chunk & 0x8000 == 0;
    let is_wide = chunk & 0x4000 != 0;
    let count = match (is_run, is_wide) {
        (true, _) => chunk & 0x1fff,
        (false, false) => 14,
        (false, true) => 7,
    };
    let at = move |place: u16| match (is_run, is_wide) {
        (true, _) => Symbol::of(chunk >> 13),
        (false, false) => Symbol::of(chunk >> (13 - place.min(13)) & 1),
        (false, true) => Symbol::of(chunk >> (2 * (6 - place.min(6)))),
    };
    (count, at)
}

/// See [`Arrivals::statuses`].
#[derive(Clone, Debug)]
pub(crate) struct Statuses<'a> {
    number: u16,
    left: u16,
    now_us: i64,
    chunks: &'a [u8],
    chunk: u16,
    in_chunk: u16,
    taken: u16,
    deltas: &'a [u8],
}

impl Statuses<'_> {
    fn symbol(&mut self) -> Option<Symbol> {
        while self.taken >= self.in_chunk {
            let (chunk, rest) = self.chunks.split_first_chunk::<CHUNK_BYTES>()?;
            self.chunks = rest;
            self.chunk = u16::from_be_bytes(*chunk);
            (self.in_chunk, self.taken) = (symbols_of(self.chunk).0, 0);
        }
        let symbol = symbols_of(self.chunk).1(self.taken);
        self.taken += 1;
        Some(symbol)
    }

    fn delta(&mut self, symbol: Symbol) -> Option<i64> {
        if symbol == Symbol::Small {
            let (delta, rest) = self.deltas.split_first()?;
            self.deltas = rest;
            return Some(i64::from(*delta));
        }
        let (delta, rest) = self.deltas.split_first_chunk()?;
        self.deltas = rest;
        Some(i64::from(i16::from_be_bytes(*delta)))
    }
}

impl Iterator for Statuses<'_> {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        self.left = self.left.checked_sub(1)?;
        let symbol = self.symbol()?;
        let number = self.number;
        self.number = number.wrapping_add(1);
        let arrived_us = match symbol {
            Symbol::Lost | Symbol::Untimed => None,
            Symbol::Small | Symbol::Large => {
                self.now_us += self.delta(symbol)? * DELTA_US;
                Some(self.now_us)
            }
        };
        Some(Status { number, arrived_us })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::packet::{Packet, marshal};
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk,
        SymbolSizeTypeTcc, SymbolTypeTcc, TransportLayerCc,
    };

    use super::*;

    /// A report as another implementation writes it.
    fn written(base: u16, statuses: &[Option<i64>]) -> Vec<u8> {
        let received = SymbolTypeTcc::PacketReceivedLargeDelta;
        let symbol = |status: &Option<i64>| match status {
            Some(_) => received,
            None => SymbolTypeTcc::PacketNotReceived,
        };
        let chunk = |seven: &[Option<i64>]| {
            let mut symbol_list: Vec<SymbolTypeTcc> = seven.iter().map(symbol).collect();
            symbol_list.resize(7, SymbolTypeTcc::PacketNotReceived);
            PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_size: SymbolSizeTypeTcc::TwoBit,
                symbol_list,
            })
        };
        let delta = |delta_us: i64| RecvDelta {
            type_tcc_packet: received,
            delta: delta_us,
        };
        let packet: Box<dyn Packet> = Box::new(TransportLayerCc {
            base_sequence_number: base,
            packet_status_count: u16::try_from(statuses.len()).unwrap(),
            reference_time: 3,
            packet_chunks: statuses.chunks(7).map(chunk).collect(),
            recv_deltas: statuses.iter().flatten().map(|us| delta(*us)).collect(),
            ..TransportLayerCc::default()
        });
        marshal(&[packet]).unwrap().to_vec()
    }

    #[test]
    fn runs_of_one_kind_are_told_one_by_one() {
        let packet: Box<dyn Packet> = Box::new(TransportLayerCc {
            base_sequence_number: 65_534,
            packet_status_count: 5,
            reference_time: 1,
            packet_chunks: [
                (3, SymbolTypeTcc::PacketReceivedSmallDelta),
                (2, SymbolTypeTcc::PacketNotReceived),
            ]
            .map(|(run_length, packet_status_symbol)| {
                PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                    type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                    packet_status_symbol,
                    run_length,
                })
            })
            .to_vec(),
            recv_deltas: [1_000, 250, 0]
                .map(|delta| RecvDelta {
                    type_tcc_packet: SymbolTypeTcc::PacketReceivedSmallDelta,
                    delta,
                })
                .to_vec(),
            ..TransportLayerCc::default()
        });
        let packet = marshal(&[packet]).unwrap();
        let told: Vec<(u16, Option<i64>)> = Arrivals::read(&packet)
            .unwrap()
            .statuses()
            .map(|s| (s.number, s.arrived_us))
            .collect();
        let expected = [
            (65_534, Some(65_000)),
            (65_535, Some(65_250)),
            (0, Some(65_250)),
            (1, None),
            (2, None),
        ];
        assert_eq!(told, expected);
    }

    proptest! {
        #[test]
        fn what_another_wrote_is_what_is_read(
            base: u16,
            statuses in proptest::collection::vec(proptest::option::of(-2_000_i64..2_000), 1..200),
        ) {
            let statuses: Vec<Option<i64>> =
                statuses.into_iter().map(|s| s.map(|delta| delta * DELTA_US)).collect();
            let packet = written(base, &statuses);
            let mut now_us = 3 * REFERENCE_US;
            let arrivals = Arrivals::read(&packet).unwrap();
            for (n, (status, delta)) in arrivals.statuses().zip(&statuses).enumerate() {
                now_us += delta.unwrap_or(0);
                let number = base.wrapping_add(u16::try_from(n).unwrap());
                let arrived_us = delta.map(|_| now_us);
                prop_assert_eq!(status, Status { number, arrived_us });
            }
            prop_assert_eq!(arrivals.statuses().count(), statuses.len());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some(arrivals) = Arrivals::read(&bytes) {
                prop_assert!(arrivals.statuses().count() <= usize::from(STATUS_MAX));
            }
        }
    }
}
