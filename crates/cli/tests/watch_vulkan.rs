//! `fencepost watch` with Vulkan programs that are stuck, on the first device that Vulkan's loader
//! finds. Without one, the tests count as skipped.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "the tests with CUDA alone use the rest")]
#[path = "watch/cuda.rs"]
mod cuda;
#[path = "watch/running.rs"]
mod running;
#[path = "watch/vulkan.rs"]
mod vulkan;

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use running::{CODE, PROGRAM, STOP, ended, this_program, wait_for, with_program};
use vulkan::{Gpu, OTHERS, PROGRAMS, Program};

/// No test, but the program that the tests watch: this executable again.
#[test]
fn the_program() {
    running::be_the_program(PROGRAMS.iter().chain(OTHERS), Gpu::open, leave);
}

/// Runs no exit handlers: NVIDIA's driver waits in them until all queues are idle, and those of a
/// stuck program never are.
fn leave(code: i32) -> ! {
    // SAFETY: it has no requirement
    unsafe { libc::_exit(code) }
}

/// Whether there is a device. If not, the summary of the tests says that the test could not run.
fn has_device(test: &str) -> bool {
    match Gpu::try_open() {
        Ok(_) => true,
        Err(why) => {
            skip(test, &why);
            false
        }
    }
}

fn skip(test: &str, why: &str) {
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = Path::new(&folder).join(format!("watch-vulkan-{test}.skip"));
        std::fs::write(file, format!("{test}: {why}\n")).unwrap();
    }
}

#[test]
fn a_stuck_vulkan_program_is_explained() {
    if has_device("a_stuck_vulkan_program_is_explained") {
        running::explained(PROGRAMS);
    }
}

#[test]
fn a_vulkan_program_that_is_not_stuck_goes_on_and_its_exit_code_is_passed_through() {
    if !has_device("a_vulkan_program_that_is_not_stuck_goes_on") {
        return;
    }
    for (name, code) in [("ends_well", 0), ("leaves_its_device", 3), ("presents", 5)] {
        let folder = tempfile::tempdir().unwrap();
        let (ended, said) = ended(&mut with_program(folder.path(), &["--after", "60"], name));
        assert_eq!(ended, Some(code), "{name}: {said}");
        assert!(
            said.lines().count() == 1 && said.contains("nothing was stuck, in "),
            "{name}: {said}"
        );
    }
}

#[test]
fn a_temporary_folder_with_a_colon_hides_no_program() {
    if !has_device("a_temporary_folder_with_a_colon_hides_no_program") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a:b");
    std::fs::create_dir(&odd).unwrap();
    let mut command = with_program(folder.path(), &[], "ends_well");
    let (code, said) = ended(command.env("TMPDIR", odd));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing was stuck, in "), "{said}");
}

/// What a process may have more at the end than after a quarter of its calls: less than is kept of
/// a semaphore or a fence, for each that was made in between.
const GROWTH: u64 = 1 << 20;

#[test]
fn many_calls_take_no_more_memory() {
    if !has_device("many_calls_take_no_more_memory") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_program(folder.path(), &["--after", "60"], "many_calls");
    if std::env::var_os(vulkan::CALLS).is_none() {
        command.env(vulkan::CALLS, "100000");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let memory: Vec<u64> = said
        .lines()
        .filter_map(|line| line.strip_prefix("MEMORY ")?.parse().ok())
        .collect();
    let [quarter, end] = memory[..] else {
        panic!("{said}{}", String::from_utf8_lossy(&output.stderr));
    };
    println!(
        "{} KiB after a quarter of the calls, {} KiB at the end",
        quarter >> 10,
        end >> 10
    );
    assert!(end < quarter + GROWTH, "{quarter} bytes, then {end}");
}

#[test]
fn a_semaphore_that_is_shared_is_said_to_be() {
    if !has_device("a_semaphore_that_is_shared_is_said_to_be") || Gpu::open().shares.is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let options = ["--after", "0.5", "--output", file.to_str().unwrap()];
    let mut command = with_program(folder.path(), &options, "shared_semaphore");
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let told = [
        "batch 2 waits for value 1 of timeline semaphore 1 \"loaded\"",
        "it also waits for binary semaphore 3 \"imported\": it is shared with what cannot be seen",
    ];
    let told = wait_for(&file, &told);
    std::fs::write(folder.path().join("stop"), "").unwrap();
    child.wait().unwrap();
    told.unwrap();
}

#[test]
fn the_end_of_a_program_that_does_nothing_is_told_too() {
    if !has_device("the_end_of_a_program_that_does_nothing_is_told_too") {
        return;
    }
    for (name, told) in [
        (
            "does_nothing",
            "nothing was stuck: no call that submits or waits was seen",
        ),
        ("submits_once", "nothing was stuck, in 1 call of the driver"),
        (
            "is_killed",
            "no last report was made: the program was ended, or called _exit",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (_, said) = ended(&mut with_program(folder.path(), &["--after", "60"], name));
        assert_eq!(said, format!("fencepost watch: {told}"), "{name}");
    }
}

#[test]
fn a_trace_of_vulkan_alone_is_said_to_be_missing() {
    if !has_device("a_trace_of_vulkan_alone_is_said_to_be_missing") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls.json");
    let options = ["--trace", file.to_str().unwrap()];
    let (code, said) = ended(&mut with_program(folder.path(), &options, "ends_well"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("no trace is saved, since no call of CUDA was seen"),
        "{said}"
    );
    assert!(!file.exists());
}

/// What the validation layer says of a program, whose calls it sees behind those of the watching.
fn validated(program: &Program) -> String {
    let folder = tempfile::tempdir().unwrap();
    let [report, said] = ["report", "said"].map(|name| folder.path().join(name));
    let options = ["--after", "0.5", "--output", report.to_str().unwrap()];
    let mut command = with_program(folder.path(), &options, program.name);
    command
        .env("VK_INSTANCE_LAYERS", vulkan::VALIDATION)
        .stdout(File::create(&said).unwrap())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let told = wait_for(&report, program.told);
    if program.name == "many_threads" {
        ask_again_and_again(&mut child);
    }
    // The others end by themselves.
    if !program.told.is_empty() {
        std::fs::write(folder.path().join("stop"), "").unwrap();
    }
    child.wait().unwrap();
    told.unwrap();
    std::fs::read_to_string(&said).unwrap()
}

/// Has reports made, for which the driver is asked, while the program makes and destroys what it is
/// asked about.
fn ask_again_and_again(child: &mut Child) {
    // Before fencepost handles the signal, it would be ended by it; the program needs longer.
    std::thread::sleep(Duration::from_millis(200));
    while child.try_wait().unwrap().is_none() {
        // SAFETY: the process is our child, which was not waited for
        unsafe { libc::kill(child.id() as i32, libc::SIGUSR1) };
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_validation_layer_is_silent_behind_the_watching() {
    let test = "the_validation_layer_is_silent_behind_the_watching";
    if !has_device(test) {
        return;
    }
    if !vulkan::has_validation() {
        return skip(test, "the validation layer is not installed");
    }
    // The second presents what it has not drawn.
    let not_valid = ["behind_a_binary_semaphore", "presents"];
    // On a busy machine, the lavapipe of Mesa 22.3.6 loses its device in this program, also where
    // nothing watches it.
    let is_lavapipe = Gpu::open().model.contains("llvmpipe");
    let fails_by_itself = |name| is_lavapipe && name == "many_threads";
    let runs =
        |program: &&Program| !not_valid.contains(&program.name) && !fails_by_itself(program.name);
    for program in PROGRAMS.iter().chain(OTHERS).filter(runs) {
        let said = validated(program);
        let serious = said.contains("VUID") || said.contains("Validation Error");
        let is_wrong = program.name == "signals_a_lower_value";
        assert_eq!(serious, is_wrong, "{}: {said}", program.name);
    }
}

#[test]
fn queues_are_told_in_json() {
    if !has_device("queues_are_told_in_json") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let options = [
        "--after",
        "0.5",
        "--json",
        "--output",
        file.to_str().unwrap(),
    ];
    let mut command = with_program(folder.path(), &options, "host_signal_never_sent");
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let told = wait_for(&file, &["\"kind\":\"report\""]);
    std::fs::write(folder.path().join("stop"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
    let told = told.unwrap();
    let report = told
        .lines()
        .find(|line| line.contains("\"kind\":\"report\""));
    let report: serde_json::Value = serde_json::from_str(report.unwrap()).unwrap();
    let report = &report["message"]["report"];
    let queue = &report["queues"][0];
    assert_eq!(queue["queue"], "queue 1 of device 1");
    assert_eq!(
        (&queue["pending"], &queue["family"]),
        (&2.into(), &0.into())
    );
    assert_eq!(
        queue["waits_for"],
        "batch 1 waits for value 1 of timeline semaphore 1 \"loaded\", which is at 0"
    );
    let thread = &report["threads"][0];
    assert_eq!(thread["call"], "vkWaitSemaphores");
    assert_eq!(
        thread["awaits"],
        "value 1 of timeline semaphore 2 \"done\", which is at 0"
    );
}

/// Prints what calls cost with and without the watching, each the least of some runs in turns.
#[test]
#[ignore = "measures: run it alone, in release, with --nocapture"]
fn what_calls_cost() {
    let mut least: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for turn in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let is_watched = turn % 2 == 1;
        let mut command = match is_watched {
            true => with_program(folder.path(), &[], "prices"),
            false => {
                let [exe, arguments @ ..] = this_program();
                let mut command = Command::new(exe);
                command
                    .args(arguments)
                    .env(PROGRAM, "prices")
                    .env(STOP, folder.path().join("stop"));
                command
            }
        };
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        for line in said.lines().filter_map(|line| line.strip_prefix("PRICE ")) {
            let (name, price) = line.rsplit_once(": ").unwrap();
            let price: u64 = price.parse().unwrap();
            let of = least.entry(name.into()).or_insert([u64::MAX; 2]);
            of[usize::from(is_watched)] = price.min(of[usize::from(is_watched)]);
        }
    }
    assert!(!least.is_empty());
    for (name, [plain, watched]) in least {
        let ratio = watched as f64 / plain as f64;
        println!("| {name} | {plain} | {watched} | {ratio:.2} |");
    }
}
