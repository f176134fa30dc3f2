pub struct Engine;
#[derive(Default)]
pub struct ConnectionState;
impl Engine {
    pub fn new(_: std::sync::Arc<arc_swap::ArcSwap<crate::snapshot::Snapshot>>, _: std::sync::Arc<crate::telemetry::Telemetry>, _: (usize, usize)) -> Self { Self }
    pub async fn serve_request(&self, _: &mut crate::downstream::DownstreamIo, _: &mut ConnectionState) -> crate::downstream::RequestEnd { crate::downstream::RequestEnd::Unsuited }
}
