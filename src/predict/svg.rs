//! Draws a ring as SVG: each arc in the colour of the peer that owns it.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use crate::ring::{MemberId, Ring};

/// The ring is drawn from its owners at this many evenly spaced positions.
const MAX_ARCS: u32 = 4096;

/// The most peers named in the legend.
const MAX_NAMES: usize = 24;

const RADIUS: f64 = 180.0;
const CENTRE: f64 = 220.0;

/// Draws the ring clockwise from the top, with a legend of its peers. `shares` as from [`Ring::shares`].
pub(crate) fn render_svg<'a>(
    ring: &Ring,
    shares: &[u64],
    label: impl Fn(MemberId) -> &'a str,
) -> String {
    let arcs = arcs(ring, shares);
    let mut lines = vec![format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 440\" font-family=\"sans-serif\" font-size=\"13\">"
    )];
    lines.extend(arcs.iter().map(|arc| arc.path(ring.members())));
    let names: BTreeMap<usize, MemberId> = arcs
        .iter()
        .map(|arc| (arc.owner.index(), arc.owner))
        .chain(ring.points().map(|(_, member)| (member.index(), member)))
        .collect();
    for (row, &member) in names.values().take(MAX_NAMES).enumerate() {
        lines.push(legend_entry(
            row,
            label(member),
            &colour(member, ring.members()),
        ));
    }
    if names.len() > MAX_NAMES {
        let more = format!("… and {} more", names.len() - MAX_NAMES);
        lines.push(legend_entry(MAX_NAMES, &more, "none"));
    }
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

/// A run of hashes with one owner. Its ends are shares of the circle, 0 … 1.
struct RingArc {
    from: f64,
    to: f64,
    owner: MemberId,
}

fn arcs(ring: &Ring, shares: &[u64]) -> Vec<RingArc> {
    if ring.sample_size().is_some() {
        return arcs_from_shares(shares);
    }
    let mut arcs: Vec<RingArc> = Vec::new();
    let step = (1_u64 << 32) / u64::from(MAX_ARCS);
    for index in 0..MAX_ARCS {
        let position = u32::try_from(u64::from(index) * step).unwrap_or(u32::MAX);
        let Some(owner) = ring.owner_at(position) else {
            continue;
        };
        let (from, to) = (
            f64::from(index) / f64::from(MAX_ARCS),
            f64::from(index + 1) / f64::from(MAX_ARCS),
        );
        match arcs.last_mut() {
            Some(last) if last.owner == owner => last.to = to,
            _ => arcs.push(RingArc { from, to, owner }),
        }
    }
    arcs
}

/// For a ring without points: one arc for each peer, as long as its share.
#[expect(clippy::cast_precision_loss, reason = "a picture is not that fine")]
fn arcs_from_shares(shares: &[u64]) -> Vec<RingArc> {
    let mut to = 0.0;
    let slice = |(share, owner): (&u64, u32)| {
        let from = to;
        to += *share as f64 / (1_u64 << 32) as f64;
        RingArc {
            from,
            to,
            owner: MemberId(owner),
        }
    };
    shares.iter().zip(0..).map(slice).collect()
}

impl RingArc {
    fn path(&self, members: usize) -> String {
        let colour = colour(self.owner, members);
        if self.to - self.from > 0.999 {
            return format!(
                "<circle cx=\"{CENTRE}\" cy=\"{CENTRE}\" r=\"{RADIUS}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"36\"/>"
            );
        }
        let ((x1, y1), (x2, y2)) = (coordinates(self.from), coordinates(self.to));
        let large = u8::from(self.to - self.from > 0.5);
        format!(
            "<path d=\"M{x1:.2} {y1:.2} A{RADIUS} {RADIUS} 0 {large} 1 {x2:.2} {y2:.2}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"36\"/>"
        )
    }
}

/// The coordinates of a position on the circle: 0 is at the top, clockwise.
fn coordinates(share: f64) -> (f64, f64) {
    let angle = share * TAU;
    (CENTRE + RADIUS * angle.sin(), CENTRE - RADIUS * angle.cos())
}

#[expect(clippy::cast_precision_loss, reason = "only a colour")]
fn colour(member: MemberId, members: usize) -> String {
    let hue = 360.0 * member.index() as f64 / members.max(1) as f64;
    let lightness = if member.index().is_multiple_of(2) {
        45
    } else {
        62
    };
    format!("hsl({hue:.0} 65% {lightness}%)")
}

fn legend_entry(row: usize, text: &str, colour: &str) -> String {
    let y = 40 + 16 * row;
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<rect x=\"450\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"470\" y=\"{y}\">{text}</text>",
        y - 11
    )
}
