use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::{Arc, Barrier};

use chassis::memory::{
    Exhaustion, TUNABLES_VARIABLE, current_bytes, data_bytes, give_back_large_blocks,
    give_back_small_blocks, peak_bytes, peak_data_bytes, report_exhaustion_to, reset_peak,
    resident_bytes, set_limit, take_exhaustion, tunables,
};

use crate::child;

const MIB: u64 = 1 << 20;
/// What the other tests of this process may allocate meanwhile.
const SLACK: u64 = 4 * MIB;
const BLOCK: u64 = 64 * MIB;

fn block() -> Vec<u8> {
    std::hint::black_box(vec![1; BLOCK as usize])
}

#[test]
fn the_allocator_counts_what_is_held_and_what_was_held_at_most() {
    let before = current_bytes();
    let held = block();
    assert!(current_bytes().abs_diff(before + BLOCK) < SLACK);

    let grown = {
        let mut grown = held;
        grown.reserve_exact(2 * BLOCK as usize);
        std::hint::black_box(grown)
    };
    assert!(current_bytes().abs_diff(before + 3 * BLOCK) < SLACK);
    drop(grown);
    assert!(current_bytes().abs_diff(before) < SLACK);
    assert!(peak_bytes().abs_diff(before + 3 * BLOCK) < SLACK);

    reset_peak();
    assert!(peak_bytes().abs_diff(before) < SLACK);
    drop(block());
    assert!(peak_bytes().abs_diff(before + BLOCK) < SLACK);
}

#[test]
fn what_the_limit_counts_is_seen_at_its_peak_and_holds_more_than_the_heap() {
    reset_peak();
    let before = data_bytes();
    assert!(before > current_bytes(), "{before}");
    drop(block());
    let peak = peak_data_bytes();
    assert!(peak.abs_diff(before + BLOCK) < 2 * SLACK, "{peak} {before}");
    assert!(data_bytes() < peak - BLOCK / 2);

    // A thread's stack is no heap, and counts.
    let (heap, without) = (current_bytes(), data_bytes());
    let (seen, wait) = std::sync::mpsc::channel::<()>();
    let stack = std::thread::Builder::new().stack_size(BLOCK as usize);
    let thread = stack.spawn(move || wait.recv()).unwrap();
    assert!(data_bytes() > without + BLOCK / 2);
    assert!(current_bytes() < heap + SLACK);
    drop(seen);
    let _ = thread.join().unwrap();
}

#[test]
fn large_blocks_that_were_freed_no_longer_count() {
    give_back_large_blocks();
    let held = || -> Vec<Vec<u8>> {
        let blocks = (0..64).map(|_| vec![1; (MIB / 2) as usize]);
        std::hint::black_box(blocks.collect())
    };
    // The second time the allocator would have learned to keep them.
    for _ in 0..2 {
        let before = data_bytes();
        let mut blocks = held();
        assert!(data_bytes() > before + 30 * MIB);
        // In no order, so that nothing can be given back from the end alone.
        let (_, odd): (Vec<_>, Vec<_>) = blocks
            .drain(..)
            .enumerate()
            .partition(|(number, _)| number % 2 == 0);
        assert!(data_bytes() < before + 18 * MIB);
        drop(odd);
        assert!(data_bytes() < before + SLACK);
    }
}

#[test]
fn small_blocks_that_were_freed_are_no_longer_resident_once_they_are_given_back() {
    let before = resident_bytes();
    let blocks: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; 32 * 1024]).collect();
    // The one behind keeps the allocator from giving back from the end.
    let behind = std::hint::black_box(vec![1u8; 32 * 1024]);
    assert!(resident_bytes() > before + 30 * MIB);
    drop(std::hint::black_box(blocks));
    assert!(resident_bytes() > before + 30 * MIB);
    give_back_small_blocks();
    assert!(resident_bytes() < before + SLACK);
    drop(behind);
}

/// Each kind of process is one of its own: glibc reads the variable before a program begins.
#[test]
fn stacks_of_ended_threads_no_longer_count_where_glibc_is_told_so() {
    const TEST: &str = "memory::stacks_of_ended_threads_no_longer_count_where_glibc_is_told_so";
    const THREADS: u64 = 4;
    const STACK: u64 = 8 * MIB;
    if child::role().is_some() {
        let before = data_bytes();
        let all_run = Arc::new(Barrier::new(THREADS as usize));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (all_run, builder) = (Arc::clone(&all_run), std::thread::Builder::new());
                let builder = builder.stack_size(STACK as usize);
                builder.spawn(move || all_run.wait().is_leader()).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        println!("kept {}", data_bytes().saturating_sub(before));
        return;
    }
    let kept = |known: Option<String>| -> u64 {
        let mut command = child::command(TEST, "child");
        match known {
            Some(known) => command.env(TUNABLES_VARIABLE, known),
            None => command.env_remove(TUNABLES_VARIABLE),
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, bytes) = text.split_once("kept ").unwrap();
        bytes.lines().next().unwrap().trim().parse().unwrap()
    };
    let by_default = kept(None);
    assert!(by_default > (THREADS - 1) * STACK, "{by_default}");
    let told = kept(Some(tunables(None)));
    assert!(told < STACK, "{told}");
}

#[test]
fn a_process_refused_memory_leaves_word_of_what_it_asked() {
    const TEST: &str = "memory::a_process_refused_memory_leaves_word_of_what_it_asked";
    if let Some(path) = child::role() {
        report_exhaustion_to(Path::new(&path)).unwrap();
        set_limit(256 * MIB).unwrap();
        drop(block());
        std::hint::black_box(vec![0_u8; 1 << 30]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exhausted");
    let output = child::command(TEST, path.to_str().unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    let Exhaustion {
        asked_bytes,
        used_bytes,
    } = take_exhaustion(&path).unwrap().unwrap();
    assert_eq!(asked_bytes, 1 << 30);
    assert!(used_bytes > 0 && used_bytes < SLACK, "{used_bytes}");
}
