//! The commands: one file each. This one is the table of contents.

mod admin;
mod bench_plan;
mod bench_validate;
mod confusion;
mod doctor;
mod exec_child;
mod fleet;
mod generated;
mod job;
mod model;
mod offline;
mod plan;
mod report;
mod service;
mod simulate;
mod source;
mod storage;
mod up;

use clap::{Parser, Subcommand};

/// Fine-tune one language model on data that stays where it lies.
#[derive(Debug, Parser)]
#[command(
    name = "fedpipe",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  fedpipe up --fleet fleet.toml                 everything on this machine; the file names each worker's data
  fedpipe model push model.gguf                 store a model, print its digest
  fedpipe job submit -f job.yaml --watch        train, and see it happen
  fedpipe job adapter job_0123456789abcdef -o adapter    fetch the result

Exit code: 0 success, 1 failure, 2 wrong usage.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: NATS, storage, all services, workers
    Up(up::Args),
    /// Store models, and list them
    #[command(subcommand)]
    Model(model::Command),
    /// Submit, show and stop jobs
    #[command(subcommand)]
    Job(job::Command),
    /// Draw loss and accuracy of jobs, simulations and trainings as SVG or HTML
    Report(report::Args),
    /// Show the workers: memory, speed, data sets, last beat, policy
    Fleet(fleet::Args),
    /// Show the plan a job would get, and why, without training
    Plan(plan::Args),
    /// Play a fleet on this machine, site after site, by a clock of its own: what a job would come to
    Simulate(simulate::Args),
    /// Train an adapter on this machine, without services
    Train(Box<offline::train::Args>),
    /// Loss, perplexity, accuracy among choices, or generated answers of a model on records
    Eval(offline::eval::Args),
    /// Write an adapter for other tools: PEFT, transformers, llama.cpp; read back and verified
    Export(offline::export::Args),
    /// Continue prompts: greedily, or drawn
    Generate(offline::generate::Args),
    /// Measure this machine: speed and memory
    #[command(subcommand)]
    Bench(offline::bench::Command),
    /// Is this site ready: NATS, storage, memory, model, data
    Doctor(doctor::Args),
    /// Identities: credentials of sites and services, and what servers are told of them
    #[command(subcommand)]
    Admin(admin::Command),
    /// Run the service that takes jobs over HTTP
    Api(service::ApiArgs),
    /// Run the service that measures workers and admits jobs
    Profiler(service::Args),
    /// Run the service that plans what each worker trains
    Planner(service::Args),
    /// Run the service that drives rounds and merges updates
    Aggregator(service::Args),
    /// Run a worker beside a site's data
    Worker(service::WorkerArgs),
    /// Replace this process by another program that ends with its parent
    #[command(hide = true)]
    ExecChild(exec_child::Args),
    /// Print the OpenAPI document of docs/openapi.json
    #[command(hide = true)]
    Openapi,
    /// Print the routes and their roles, as in docs/api.md
    #[command(hide = true)]
    Routes,
    /// Print the message tables of docs/messages.md
    #[command(hide = true)]
    Messages,
    /// Print the table of all metrics, as in docs/metrics.md
    Metrics,
    /// Print which merging rule may be combined with what, as in docs/rules.md
    Rules,
    /// Print the NATS configuration that the permissions are generated into, with example users
    #[command(hide = true)]
    NatsPermissions,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, for the terminal.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Up(args) => args.run(),
            Command::Model(command) => command.run(),
            Command::Job(command) => command.run(),
            Command::Report(args) => args.run(),
            Command::Fleet(args) => args.run(),
            Command::Plan(args) => args.run(),
            Command::Simulate(args) => args.run(),
            Command::Train(args) => args.run(),
            Command::Eval(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Generate(args) => args.run(),
            Command::Bench(command) => command.run(),
            Command::Doctor(args) => args.run(),
            Command::Admin(command) => command.run(),
            Command::Api(args) => args.common.run(&args.flags(), api::run),
            Command::Profiler(args) => args.run(&args.flags(), profiler::run),
            Command::Planner(args) => args.run(&args.flags(), planner::run),
            Command::Aggregator(args) => args.run(&args.flags(), aggregator::run),
            Command::Worker(args) => args.common.run(&args.flags(), worker::run),
            Command::ExecChild(args) => args.run(),
            Command::Openapi => generated::openapi(),
            Command::Routes => generated::routes(),
            Command::Messages => generated::messages(),
            Command::Metrics => generated::metrics(),
            Command::Rules => generated::rules(),
            Command::NatsPermissions => generated::nats_permissions(),
        }
    }
}

/// Runs a command that waits for others. One thread is enough for it.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
