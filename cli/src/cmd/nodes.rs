//! `unimse nodes`, `drain` and `undrain`.

use unimse_core::view::NodeView;
use unimse_proto::client::Client;

use super::refresh;
use crate::args::{DrainArgs, Format, NodesArgs};
use crate::context::{self, Context};
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use crate::render;

pub(crate) async fn list(context: &Context, args: NodesArgs) -> Result<Exit> {
    let client = context.client().await?;
    if args.watch && args.output.format == Format::Table {
        let table = async || Ok(render::node::list(&nodes(&client, args.all).await?, context::now()));
        return refresh::run(context, table).await;
    }
    let nodes = nodes(&client, args.all).await?;
    match args.output.format {
        Format::Json => output::print_json("nodes", &nodes)?,
        Format::Table if nodes.is_empty() => {
            let url = &context.settings.coordinator;
            context.say(&format!("no workers: start one with `unimse worker --coordinator {url}`"));
        }
        Format::Table => {
            output::print(&render::node::list(&nodes, context::now()).render(context.terminal.width))?;
        }
    }
    Ok(Exit::Done)
}

async fn nodes(client: &Client, all: bool) -> Result<Vec<NodeView>> {
    let nodes = client.nodes().await?;
    Ok(nodes.into_iter().filter(|node| all || !node.is_gone()).collect())
}

pub(crate) async fn drain(context: &Context, args: DrainArgs, drained: bool) -> Result<Exit> {
    let client = context.client().await?;
    client.drain(&args.node, drained).await?;
    let nodes = client.nodes().await?;
    let found = nodes.into_iter().find(|node| node.node == args.node || node.worker.to_string() == args.node);
    match args.output.format {
        Format::Json => output::print_json("node", &found)?,
        Format::Table => {
            let next = if drained {
                "it takes no new ranks; what runs there saves and moves away"
            } else {
                "it takes ranks again"
            };
            context.say(&format!("{} is {}: {next}", args.node, if drained { "drained" } else { "in use" }));
        }
    }
    Ok(Exit::Done)
}
