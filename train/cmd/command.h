/* command: what a command of the program says about itself, and its command line once read.
 *
 * A command is one file train/cmd/cmd_<name>.c that exports `const CommandSpec command_<name>`, and one row of
 * train/cmd/commands.def. The spec drives parsing, `--help` and the refusal of unknown options (nearest name, exit 2), so
 * help cannot lie. `--help`, `--quiet` and `--verbose` belong to every command and are not listed.
 *
 *   const CommandSpec command_generate = {
 *       .name = "generate",
 *       .summary = "continue a prompt",
 *       .usage = "generate MODEL [options]",
 *       .examples = {"aspis generate runs/shakespeare --prompt 'To be'", "aspis generate runs/a --max-tokens 50 --json"},
 *       .options = (const OptionSpec[]){{"max-tokens", "N", "tokens to make (default 200)"},
 *                                       {"json", NULL, "print one JSON object"},
 *                                       {0}},
 *       .min_args = 1, .max_args = 1, .args = "MODEL",
 *       .run = cmd_generate,
 *   };
 */
#pragma once

#include "tensor/base.h"

typedef struct OptionSpec {
  const char *name;  /* without the dashes; NULL ends the table */
  const char *value; /* placeholder of its value ("N", "DIR", "auto|cpu|cuda"); NULL: a flag without value */
  const char *help;  /* one line */
  bool repeated;     /* may be given several times (`--set`) */
} OptionSpec;

typedef struct Command Command;

typedef struct CommandSpec {
  const char *name, *summary; /* summary: one line, lower case, for `aspis --help` */
  const char *usage;          /* "train CONFIG [options]", without the program's name */
  const char *examples[4];    /* whole command lines, two at least */
  const OptionSpec *options;  /* ended by an empty row; NULL: none of its own */
  const char *args;           /* what the positional arguments are, for messages: "CONFIG", "RUN..." */
  int min_args, max_args;     /* positional arguments; max_args -1: any number */
  Status (*run)(const Command *command);
} CommandSpec;

/* A command line that matches its spec. All strings are argv's own. */
struct Command {
  const CommandSpec *spec;
  const char **args; /* positional arguments */
  int n_args;
  const char **values;        /* one entry per given option, in order: its value, or "" for a flag ... */
  const OptionSpec **options; /* ... and its spec */
  int n_options;
  bool quiet, verbose, help;
  int argc; /* the whole command line, for the record */
  char **argv;
};

/* Ready-made rows for tables of options. */
#define OPTION_SET                                                                                                     \
  { "set", "KEY=VALUE", "set one key of the config; may be repeated", true }
#define OPTION_JSON                                                                                                    \
  { "json", NULL, "print one JSON object", false }

/* Reads what follows the command's name. Unknown options, missing values, too few or too many arguments: CODE_USAGE, one
 * line each, all of them. `--` ends the options; `--name value` and `--name=value` are the same. With --help (or -h) the
 * rest goes unchecked and ->help is set. command_free in any case. */
Status command_parse(const CommandSpec *spec, int argc, char **argv, Command *command);
void command_free(Command *command);

/* The options as given. Asking for a name that the spec lacks is a CHECK. */
bool command_has(const Command *command, const char *name);
/* The value (the last one given), or `otherwise`. */
const char *command_text(const Command *command, const char *name, const char *otherwise);
/* All values of a repeated option: returns how many; *values is malloc'ed (free the array, not the strings), never NULL. */
int command_all(const Command *command, const char *name, const char ***values);
/* Numbers: *value stays as it is when the option was not given. Outside [min, max] or not a number: CODE_USAGE. */
Status command_int(const Command *command, const char *name, int64_t min, int64_t max, int64_t *value);
Status command_real(const Command *command, const char *name, double min, double max, double *value);
/* One of the NULL-terminated choices, as its index. */
Status command_choice(const Command *command, const char *name, const char *const *choices, int *index);

/* Whether the file that an option names, if it was given, could be written: to be asked before the work. CODE_DATA. */
Status command_check_output(const Command *command, const char *name);

/* Prints the help of one command to stdout: two examples, then arguments and options. */
void command_print_help(const CommandSpec *spec);
/* Prints the lines of a status to stderr, if there are any, and takes them away: they are told once. */
void command_tell(Status *status);
