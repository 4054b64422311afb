//! The static planner on the instances of Moffitt's MiniMalloc (ASPLOS 2023; CSV of id, lower, upper, size):
//! `cargo bench --bench plan [-- CAPACITY NODES [DIR]]`. Capacity 0 asks for the least height that the nodes can find.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use halfbyte::memory::plan::{Effort, Lifetime, check, clique::max_live, place};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let target = args.first().map_or(Ok(1 << 20), |a| a.parse())?;
    let nodes = args.get(1).map_or(Ok(1_000_000), |a| a.parse())?;
    let dir = args.get(2).map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/minimalloc"), PathBuf::from);
    let Ok(files) = std::fs::read_dir(&dir) else {
        println!("SKIP: no instances in {}", dir.display());
        return Ok(());
    };
    let mut files = files.map(|f| Ok(f?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();
    println!("{:<10} {:>8} {:>9} {:>9} {:>7} {:>9} {:>10}", "instance", "buffers", "max live", "height", "gap", "nodes", "ms");
    let mut total_ms = 0.0;
    for file in &files {
        let all = read(file)?;
        let began = Instant::now();
        let placement = place(&all, &Effort { align: 1, target, nodes, time: None })?;
        let ms = began.elapsed().as_secs_f64() * 1e3;
        check(&all, &placement.offsets, 1, placement.bytes)?;
        let (live, name) = (max_live(&all), file.file_stem().unwrap_or_default().to_string_lossy());
        let gap = 100.0 * (placement.bytes as f64 / live as f64 - 1.0);
        println!("{name:<10} {:>8} {live:>9} {:>9} {gap:>6.2}% {:>9} {ms:>10.1}", all.len(), placement.bytes, placement.nodes);
        total_ms += ms;
    }
    println!("{total_ms:.0} ms in total, one thread");
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Lifetime>, Box<dyn Error>> {
    let life = |line: &str| -> Result<Lifetime, Box<dyn Error>> {
        let fields = line.split(',').map(|n| Ok(n.trim().parse()?)).collect::<Result<Vec<usize>, Box<dyn Error>>>()?;
        let [_, first, end, bytes] = fields[..] else { return Err(format!("{line}: not id,lower,upper,size").into()) };
        Ok(Lifetime { first, last: end.checked_sub(1).filter(|&l| l >= first).ok_or("an empty life")?, bytes })
    };
    std::fs::read_to_string(file)?.lines().skip(1).map(life).collect()
}
