//! What is told of a shedding, in counters and in a line of the log.

use super::{Holder, LIMIT, LIMIT_REASON};
use crate::broker::Core;
use crate::escape::escape;
use crate::session::Shed;

/// Clients named in the line that tells of a shedding.
const NAMED_MAX: usize = 3;

impl Core {
    pub(super) fn tell_shedding(
        &self,
        max: usize,
        before: usize,
        unloaded: usize,
        closed: usize,
        mut spent: Vec<Holder>,
    ) {
        spent.retain(|holder| holder.shed.messages > 0);
        let dropped: usize = spent.iter().map(|holder| holder.shed.messages).sum();
        self.metrics.dropped.add(LIMIT_REASON, dropped as u64);
        self.metrics.sheddings.add(1);
        let Some(untold) = self.told.tell(LIMIT, self.now()) else { return };
        spent.sort_unstable_by_key(|holder| std::cmp::Reverse(holder.shed.bytes));
        let named = spent.iter().take(NAMED_MAX).map(|holder| {
            let Shed { messages, bytes } = holder.shed;
            format!("{} ({messages} messages, {bytes} bytes)", escape(&holder.client.id))
        });
        let most: Vec<String> = named.collect();
        tracing::warn!(
            limit = LIMIT,
            value = max,
            before,
            after = self.accounts.total(),
            unloaded,
            dropped,
            closed,
            clients = spent.len(),
            most = most.join(", "),
            untold,
            "clients hold too much in memory: what is on disk too has left it, messages were dropped where that was not enough, and where \
             nothing could be dropped those who hold most are closed; told every ten seconds at most"
        );
    }
}
