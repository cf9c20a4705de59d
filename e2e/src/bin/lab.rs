fn main() -> anyhow::Result<()> {
    let lab = patina_e2e::lab::Lab::up(
        patina_e2e::lab::Options {
            name: Some("x".into()),
            nodes: 3,
            install: std::env::var_os("INSTALL").is_some(),
        },
        |l| println!("{l}"),
    )?;
    std::io::stdin().read_line(&mut String::new())?;
    lab.down();
    Ok(())
}
