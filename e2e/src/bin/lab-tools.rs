//! Finds or builds the programs that the lab runs and that are not ours, and prints their paths:
//! all of them, or those that are named.

use anyhow::{Context, Result};
use patina_e2e::tools::Tool;

fn main() -> Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let tools: Vec<Tool> = if named.is_empty() {
        Tool::ALL.to_vec()
    } else {
        let known = Tool::ALL.map(Tool::name).join(", ");
        let find =
            |name: &String| Tool::by_name(name).with_context(|| format!("no tool {name}; there are {known}"));
        named.iter().map(find).collect::<Result<_>>()?
    };
    for tool in tools {
        println!("{}", tool.path()?.display());
    }
    Ok(())
}
