//! Content that a next hop does not offer to take, made into content that it does.

use bytes::Bytes;
use delivery::EightBitContent;
use mail::{BodyType, QueueId};
use message::convert::{Capacity, Unconvertible, convert};
use smtp::client::{Offers, Transaction};
use watch::events::Converted;

use crate::shard::Shard;

/// Octets that are converted at once; more of them are beside the shard, which has other things to do.
const AT_ONCE: usize = 64 << 10;

/// Sees to it that the transaction is one that the next hop takes, as far as may be: it is told of, and the content is given that is
/// to be sent in the place of the message's own. What the transaction then still asks for, the client refuses.
pub(crate) async fn fit(
    shard: &Shard,
    how: EightBitContent,
    offers: &Offers,
    id: QueueId,
    transaction: &mut Transaction,
    content: &[Bytes],
) -> Option<Vec<Bytes>> {
    let to = if offers.eight_bit_mime { Capacity::EightBit } else { Capacity::SevenBit };
    let (needed, offered) = match transaction.body {
        BodyType::BinaryMime => (true, offers.binary_mime && offers.chunking),
        // Nobody has looked whether it is what the client said, or did not say.
        BodyType::SevenBit | BodyType::EightBitMime => {
            let is_ascii = || content.iter().all(|slice| slice.is_ascii());
            (!offers.eight_bit_mime && !is_ascii(), offers.eight_bit_mime)
        }
    };
    if offered {
        return None;
    }
    // What comes of it, where nothing is to be changed.
    let as_is = match to {
        Capacity::SevenBit => BodyType::SevenBit,
        Capacity::EightBit => BodyType::EightBitMime,
    };
    if !needed {
        transaction.body = as_is;
        return None;
    }
    match (how, transaction.body) {
        (EightBitContent::AsIs, BodyType::SevenBit | BodyType::EightBitMime) => {
            transaction.body = BodyType::SevenBit;
            None
        }
        (EightBitContent::AsIs | EightBitContent::Refused, BodyType::BinaryMime)
        | (EightBitContent::Refused, BodyType::EightBitMime) => None,
        (EightBitContent::Refused, BodyType::SevenBit) => {
            transaction.body = BodyType::EightBitMime;
            None
        }
        (EightBitContent::Converted, body) => match run(content, body, to).await {
            Ok(converted) => {
                transaction.body = as_is;
                let converted = converted?;
                let size = converted.len() as u64;
                shard.metrics.outbound.conversions.done.one();
                Converted { id: &id, from: transaction.size, to: size }.emit(ring::clock::unix_micros());
                transaction.size = size;
                Some(vec![Bytes::from(converted)])
            }
            Err(why) => {
                shard.metrics.outbound.conversions.failed.one();
                if body == BodyType::SevenBit {
                    transaction.body = BodyType::EightBitMime;
                }
                transaction.unconverted = Some(why.as_str());
                None
            }
        },
    }
}

async fn run(content: &[Bytes], body: BodyType, to: Capacity) -> Result<Option<Vec<u8>>, Unconvertible> {
    if message::content::len(content) <= AT_ONCE {
        return convert(&content.concat(), body, to);
    }
    let content = content.to_vec();
    ring::blocking(move || convert(&content.concat(), body, to)).await
}
