//! Events by HTTP, from orders itself. The place is the path of the next page, with the feed's cursor.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, StatusCode, Url};

use crate::event::Event;
use crate::store::Store;

const SOURCE: &str = "feed";
/// The first page. orders holds an answer until there is an event, for 20 s at most.
const START: &str = "/events?limit=200&wait=20";

pub async fn read(orders: &Url, store: &Store) -> Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(40)).build()?;
    loop {
        let page = store.place(SOURCE)?;
        let answer = client.get(orders.join(page.as_deref().unwrap_or(START))?).send().await?;
        if let StatusCode::GONE | StatusCode::BAD_REQUEST = answer.status() {
            return store.lost(SOURCE, &answer.text().await?);
        }
        let answer = answer.error_for_status()?;
        let link = answer.headers().get("link").and_then(|link| link.to_str().ok()?.strip_prefix('<')?.split_once('>'));
        let next = link.context("the feed has no next page")?.0.to_owned();
        store.receive(&answer.json::<Vec<Event>>().await?, SOURCE, &next)?;
    }
}
