/* command: see command.h. */
#include "train/cmd/command.h"

#include "tensor/publish.h"
#include "train/config/mistakes.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const OptionSpec common_options[] = {{"help", NULL, "show this help", false},
                                            {"quiet", NULL, "no progress on stderr, errors only", false},
                                            {"verbose", NULL, "say more on stderr", false},
                                            {0}};
static const OptionSpec no_options[] = {{0}};

static const OptionSpec *own_options(const CommandSpec *spec) { return spec->options ? spec->options : no_options; }

/* The row of an option named by the first `length` bytes of `name`, or NULL. */
static const OptionSpec *option_find(const OptionSpec *options, const char *name, size_t length) {
  for (; options->name; options++)
    if (strlen(options->name) == length && !strncmp(options->name, name, length)) return options;
  return NULL;
}

static void unknown_option(const CommandSpec *spec, const char *argument, size_t length, Mistakes *mistakes) {
  const char *names[64];
  int n = 0;
  for (const OptionSpec *o = own_options(spec); o->name && n < 60; o++) names[n++] = o->name;
  for (const OptionSpec *o = common_options; o->name; o++) names[n++] = o->name;
  const size_t before = strspn(argument, "-");
  char *word = base_format("%.*s", (int)(length - before), argument + before);
  const char *nearest = name_nearest(word, names, n);
  if (nearest)
    mistakes_add(mistakes, "%s: %.*s: unknown option; did you mean \"--%s\"?", spec->name, (int)length, argument,
                 nearest);
  else
    mistakes_add(mistakes, "%s: %.*s: unknown option; `aspis %s --help` lists them", spec->name, (int)length, argument,
                 spec->name);
  free(word);
}

/* Options have two dashes, those of one letter one. */
static const char *dashes(const char *name) { return name[1] ? "--" : "-"; }
static int n_dashes(const char *argument) {
  return argument[0] != '-' ? 0 : argument[1] == '-' ? 2 : argument[1] && (!argument[2] || argument[2] == '=') ? 1 : 0;
}

/* True when the argument is an option of this command by its form and name: then it is nobody's value. */
static bool is_option(const CommandSpec *spec, const char *argument) {
  if (!n_dashes(argument)) return false;
  const char *name = argument + n_dashes(argument);
  size_t length = strcspn(name, "=");
  return option_find(own_options(spec), name, length) || option_find(common_options, name, length);
}

/* Reads argv[i], an option; returns the index of the next argument. */
static int parse_option(const CommandSpec *spec, int argc, char **argv, int i, Command *command, Mistakes *mistakes) {
  const char *argument = argv[i], *equals = strchr(argument, '=');
  size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
  const size_t before = (size_t)n_dashes(argument);
  const char *name = argument + before;
  const bool named = before > 0 && length > before && (before == 2) == (length - before > 1);
  const OptionSpec *common = named ? option_find(common_options, name, length - before) : NULL;
  const OptionSpec *option = named ? option_find(own_options(spec), name, length - before) : NULL;
  if (common) option = common;
  if (!option) {
    unknown_option(spec, argument, length, mistakes);
    return i + 1;
  }
  if (!option->value && equals) {
    mistakes_add(mistakes, "%s: %s%s: found the value \"%s\", expected none", spec->name, dashes(option->name),
                 option->name, equals + 1);
    return i + 1;
  }
  if (common) {
    command->quiet |= !strcmp(option->name, "quiet");
    command->verbose |= !strcmp(option->name, "verbose");
    return i + 1;
  }
  const char *value = "";
  int next = i + 1;
  if (option->value && equals) {
    value = equals + 1;
  } else if (option->value) {
    if (next >= argc || is_option(spec, argv[next])) {
      mistakes_add(mistakes, "%s: %s%s: found no value, expected %s", spec->name, dashes(option->name), option->name,
                   option->value);
      return next;
    }
    value = argv[next++];
  }
  if (!option->repeated && option->value && command_has(command, option->name))
    mistakes_add(mistakes, "%s: %s%s: given twice, expected once", spec->name, dashes(option->name), option->name);
  command->values[command->n_options] = value;
  command->options[command->n_options++] = option;
  return next;
}

static bool asks_for_help(int argc, char **argv) {
  for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
  return false;
}

Status command_parse(const CommandSpec *spec, int argc, char **argv, Command *command) {
  *command = (Command){.spec = spec, .argc = argc, .argv = argv};
  size_t bytes = ((size_t)argc + 1) * sizeof(char *);
  command->args = base_zalloc(bytes);
  command->values = base_zalloc(bytes);
  command->options = base_zalloc(bytes);
  command->help = asks_for_help(argc, argv);
  if (command->help) return STATUS_OK;
  Mistakes mistakes = {0};
  bool options_end = false;
  for (int i = 0; i < argc;) {
    if (!options_end && !strcmp(argv[i], "--")) {
      options_end = true;
      i++;
    } else if (!options_end && argv[i][0] == '-' && argv[i][1]) {
      i = parse_option(spec, argc, argv, i, command, &mistakes);
    } else {
      if (!*argv[i]) mistakes_add(&mistakes, "%s: found an empty argument, expected %s", spec->name, spec->args);
      command->args[command->n_args++] = argv[i++];
    }
  }
  if (command->n_args < spec->min_args)
    mistakes_add(&mistakes, "%s: found %d arguments, expected %s; usage: aspis %s", spec->name, command->n_args,
                 spec->args, spec->usage);
  else if (spec->max_args >= 0 && command->n_args > spec->max_args)
    mistakes_add(&mistakes, "%s: \"%s\": one argument too many; usage: aspis %s", spec->name,
                 command->args[spec->max_args], spec->usage);
  return mistakes_status(&mistakes, CODE_USAGE);
}

void command_free(Command *command) {
  free(command->args);
  free(command->values);
  free(command->options);
  *command = (Command){0};
}

/* Index of the last one given, or -1. */
static int given_last(const Command *command, const char *name) {
  CHECK(option_find(own_options(command->spec), name, strlen(name)), "command %s has no option --%s",
        command->spec->name, name);
  for (int i = command->n_options - 1; i >= 0; i--)
    if (!strcmp(command->options[i]->name, name)) return i;
  return -1;
}

bool command_has(const Command *command, const char *name) { return given_last(command, name) >= 0; }

const char *command_text(const Command *command, const char *name, const char *otherwise) {
  int i = given_last(command, name);
  return i < 0 ? otherwise : command->values[i];
}

int command_all(const Command *command, const char *name, const char ***values) {
  int last = given_last(command, name), n = 0;
  *values = base_alloc(((size_t)last + 2) * sizeof(char *));
  for (int i = 0; i <= last; i++)
    if (!strcmp(command->options[i]->name, name)) (*values)[n++] = command->values[i];
  return n;
}

Status command_int(const Command *command, const char *name, int64_t min, int64_t max, int64_t *value) {
  const char *text = command_text(command, name, NULL);
  if (!text) return STATUS_OK;
  char *end;
  errno = 0;
  int64_t number = strtoll(text, &end, 10);
  if (end == text || *end || errno || number < min || number > max)
    return max == INT64_MAX
               ? status_fail(CODE_USAGE, "%s: %s%s: found \"%s\", expected an integer, %lld or more",
                             command->spec->name, dashes(name), name, text, (long long)min)
               : status_fail(CODE_USAGE, "%s: %s%s: found \"%s\", expected an integer, %lld to %lld",
                             command->spec->name, dashes(name), name, text, (long long)min, (long long)max);
  *value = number;
  return STATUS_OK;
}

Status command_real(const Command *command, const char *name, double min, double max, double *value) {
  const char *text = command_text(command, name, NULL);
  if (!text) return STATUS_OK;
  char *end;
  double number = strtod(text, &end);
  if (end == text || *end || isnan(number) || number < min || number > max)
    return isinf(max) ? status_fail(CODE_USAGE, "%s: --%s: found \"%s\", expected a number, %g or more",
                                    command->spec->name, name, text, min)
                      : status_fail(CODE_USAGE, "%s: --%s: found \"%s\", expected a number, %g to %g",
                                    command->spec->name, name, text, min, max);
  *value = number;
  return STATUS_OK;
}

Status command_choice(const Command *command, const char *name, const char *const *choices, int *index) {
  const char *text = command_text(command, name, NULL);
  if (!text) return STATUS_OK;
  for (int i = 0; choices[i]; i++)
    if (!strcmp(text, choices[i])) {
      *index = i;
      return STATUS_OK;
    }
  char *list = base_strdup(choices[0]);
  for (int i = 1; choices[i]; i++) {
    char *longer = base_format("%s, %s", list, choices[i]);
    free(list);
    list = longer;
  }
  Status status =
      status_fail(CODE_USAGE, "%s: --%s: found \"%s\", expected one of %s", command->spec->name, name, text, list);
  free(list);
  return status;
}

Status command_check_output(const Command *command, const char *name) {
  const char *path = command_text(command, name, NULL);
  return path ? publish_check(path, CODE_DATA) : STATUS_OK;
}

static int option_width(const OptionSpec *o) {
  return (int)(strlen(o->name) + strlen(dashes(o->name))) + (o->value ? (int)strlen(o->value) + 1 : 0);
}

static void print_options(const OptionSpec *options, int width) {
  for (const OptionSpec *o = options; o->name; o++)
    printf("  %s%s%s%s%*s%s\n", dashes(o->name), o->name, o->value ? " " : "", o->value ? o->value : "",
           width - option_width(o) + 2, "", o->help);
}

void command_print_help(const CommandSpec *spec) {
  printf("aspis %s: %s\n\n", spec->name, spec->summary);
  for (int i = 0; i < 4 && spec->examples[i]; i++) printf("  %s\n", spec->examples[i]);
  printf("\nusage: aspis %s\n\noptions:\n", spec->usage);
  int width = 0;
  for (const OptionSpec *o = own_options(spec); o->name; o++)
    if (option_width(o) > width) width = option_width(o);
  for (const OptionSpec *o = common_options; o->name; o++)
    if (option_width(o) > width) width = option_width(o);
  print_options(own_options(spec), width);
  print_options(common_options, width);
}

void command_tell(Status *status) {
  const char *no_color = getenv("NO_COLOR");
  bool color = isatty(STDERR_FILENO) && !(no_color && *no_color) && status->code != CODE_STOPPED;
  for (char *line = status->line, *end; line; line = end) {
    end = strchr(line, '\n');
    if (end) *end++ = '\0';
    fprintf(stderr, "%s %s\n", color ? "\033[1;31maspis:\033[0m" : "aspis:", line);
  }
  free(status->line);
  status->line = NULL;
}
