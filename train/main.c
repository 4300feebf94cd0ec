/* main: the table of commands, and the only place where a Status becomes output and an exit code.
 *
 * stdout is for results, stderr for everything else. No locale is set: numbers read and print alike everywhere. */
#include "train/cmd/command.h"
#include "train/config/config.h"
#include "train/config/mistakes.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMMAND(name) extern const CommandSpec command_##name;
#include "train/cmd/commands.def"
#undef COMMAND

static const CommandSpec *const commands[] = {
#define COMMAND(name) &command_##name,
#include "train/cmd/commands.def"
#undef COMMAND
};
#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

static Status command_find(const char *name, const CommandSpec **spec) {
  const char *names[N_COMMANDS];
  for (int i = 0; i < N_COMMANDS; i++) {
    names[i] = commands[i]->name;
    *spec = commands[i];
    if (!strcmp(name, names[i])) return STATUS_OK;
  }
  const char *nearest = name_nearest(name, names, N_COMMANDS);
  if (nearest) return status_fail(CODE_USAGE, "%s: unknown command; did you mean \"%s\"?", name, nearest);
  return status_fail(CODE_USAGE, "%s: unknown command; `aspis --help` lists them", name);
}

static void print_program_help(void) {
  printf("aspis: trains Mamba-2 and Mamba-3 models from one YAML file\n\n"
         "  aspis train configs/shakespeare_char.yaml\n"
         "  aspis generate runs/shakespeare_char --prompt 'To be' --max-tokens 200\n\n"
         "usage: aspis COMMAND [arguments] [options]\n\ncommands:\n");
  for (int i = 0; i < N_COMMANDS; i++) printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
  printf("\n  aspis COMMAND --help      a command's options\n"
         "  aspis help config [KEY]   every key of the config, or one\n"
         "  aspis --version           version and commit\n\n"
         "exit codes: 0 done; 1 a check failed; 2 usage or config; 3 data; 4 checkpoint or weights;\n"
         "5 non-finite numbers; 6 a peer failed; 7 out of memory; 75 stopped on request, state saved\n");
}

static Status cmd_help(const Command *command) {
  if (!command->n_args) {
    print_program_help();
    return STATUS_OK;
  }
  if (!strcmp(command->args[0], "config")) return config_print_help(command->n_args > 1 ? command->args[1] : NULL);
  if (command->n_args > 1) return status_fail(CODE_USAGE, "help: \"%s\": one argument too many", command->args[1]);
  const CommandSpec *spec;
  TRY(command_find(command->args[0], &spec));
  command_print_help(spec);
  return STATUS_OK;
}

const CommandSpec command_help = {
    .name = "help",
    .summary = "the help of a command, or the keys of the config",
    .usage = "help [COMMAND | config [KEY]]",
    .examples = {"aspis help train", "aspis help config optim.lr"},
    .args = "COMMAND",
    .max_args = 2,
    .run = cmd_help,
};

static Status run(int argc, char **argv) {
  bool quiet = false, verbose = false;
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; i++) {
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
      print_program_help();
      return STATUS_OK;
    }
    if (!strcmp(argv[i], "--version")) {
      printf("aspis %s (%s)\n", ASPIS_VERSION, ASPIS_COMMIT);
      return STATUS_OK;
    }
    if (!strcmp(argv[i], "--quiet")) quiet = true;
    else if (!strcmp(argv[i], "--verbose")) verbose = true;
    else
      return status_fail(CODE_USAGE, "%s: unknown option before the command; `aspis --help` shows the usage", argv[i]);
  }
  if (i >= argc) return status_fail(CODE_USAGE, "found no command, expected one; `aspis --help` lists them");
  const CommandSpec *spec;
  TRY(command_find(argv[i], &spec));
  Command command;
  Status status = command_parse(spec, argc - i - 1, argv + i + 1, &command);
  command.quiet |= quiet;
  command.verbose |= verbose;
  if (status.code == CODE_OK && command.help) command_print_help(spec);
  else if (status.code == CODE_OK) status = spec->run(&command);
  command_free(&command);
  return status;
}

/* OpenMP's threads spin for milliseconds between parallel regions, which makes everything many times slower as soon as
 * another process wants a core. The runtime reads its settings before main, so a program that wants others starts anew. */
static void calm_openmp(char **argv) {
  if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  setenv("GOMP_SPINCOUNT", "8000", 1);
  char path[4096]; /* by its own name, so that ps and top show it */
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) return;
  path[n] = 0;
  execv(path, argv); /* where that fails the program goes on as it is */
}

int main(int argc, char **argv) {
  calm_openmp(argv);
  signal(SIGXFSZ, SIG_IGN); /* a file that outgrows its limit is a failed write with a message, not a death */
  Status status = run(argc, argv);
  if ((fflush(stdout) || ferror(stdout)) && status.code == CODE_OK)
    status = status_fail(CODE_DATA, "standard output cannot be written: %s", strerror(errno));
  command_tell(&status);
  Code code = status.code;
  status_clear(&status);
  return (int)code;
}
