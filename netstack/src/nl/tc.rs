//! A token bucket in front of an interface.

use super::socket::Batch;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const LINKLAYER_ETHERNET: u8 = 1;

impl Batch {
    /// What leaves interface `index` leaves at `bits` a second; `burst` bytes may go at once,
    /// `queue` bytes may wait.
    pub fn limit_rate(&mut self, tag: usize, index: u32, bits: u64, (burst, queue): (u32, u32)) {
        let bytes = bits / 8;
        // struct tc_tbf_qopt: two rates of 12 bytes (the second, of peaks, unused), limit, buffer, mtu.
        // The kernel takes rate and bucket from the attributes beside it, and needs no table of
        // transmission times when it is told the link layer.
        let mut options = [0u8; 36];
        options[1] = LINKLAYER_ETHERNET;
        options[8..12].copy_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes());
        options[24..28].copy_from_slice(&queue.to_ne_bytes());
        let mut message = TcMessage::with_index(i32::try_from(index).unwrap_or(i32::MAX));
        message.header.parent = TcHandle::ROOT;
        message.header.handle = TcHandle { major: 1, minor: 0 };
        let mut nested = vec![TcOption::Other(DefaultNla::new(TCA_TBF_PARMS, options.to_vec()))];
        nested.push(TcOption::Other(DefaultNla::new(TCA_TBF_BURST, burst.to_ne_bytes().to_vec())));
        // Only what does not fit 32 bits: the kernel refuses a wide rate that would fit.
        if u32::try_from(bytes).is_err() {
            nested.push(TcOption::Other(DefaultNla::new(TCA_TBF_RATE64, bytes.to_ne_bytes().to_vec())));
        }
        message.attributes = vec![TcAttribute::Kind("tbf".into()), TcAttribute::Options(nested)];
        self.push(tag, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE);
    }
}
