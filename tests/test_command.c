/* command: command lines are read as their table says, and what the table lacks is refused with the nearest name. */
#include "train/cmd/command.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "train/config/mistakes.h"

static const CommandSpec spec = {
    .name = "try",
    .summary = "a command for the tests",
    .usage = "try MODEL [OTHER] [options]",
    .examples = {"aspis try a", "aspis try a b"},
    .options = (const OptionSpec[]){{"top-k", "K", "an integer", false},
                                    {"top-p", "P", "a number", false},
                                    {"prompt", "TEXT", "a text", false},
                                    OPTION_SET,
                                    OPTION_JSON,
                                    {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 2,
};

#define MAX_WORDS 16

typedef struct Line { /* a command line cut at spaces */
  char text[256];
  char *words[MAX_WORDS];
  int n;
  Command command;
  Status status;
} Line;

static void line_parse(Line *line, const char *text) {
  *line = (Line){0};
  snprintf(line->text, sizeof line->text, "%s", text);
  char *rest = NULL;
  for (char *word = strtok_r(line->text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
    line->words[line->n++] = word;
  line->status = command_parse(&spec, line->n, line->words, &line->command);
}

static void line_free(Line *line) {
  command_free(&line->command);
  status_clear(&line->status);
}

Test(command, options_and_arguments_are_found_in_any_order) {
  Line line;
  line_parse(&line, "--set a=1 model --top-k=3 --set=b=2 --quiet --prompt -x --json --top-p -0.5 -- --other");
  const Command *c = &line.command;
  cr_assert(line.status.code == CODE_OK, "%s", line.status.line);
  cr_expect(c->n_args == 2 && !strcmp(c->args[0], "model") && !strcmp(c->args[1], "--other"), "arguments");
  cr_expect(c->quiet && !c->verbose && !c->help, "common flags");
  const char **sets;
  int n_sets = command_all(c, "set", &sets);
  cr_expect(n_sets == 2 && !strcmp(sets[0], "a=1") && !strcmp(sets[1], "b=2"), "a repeated option, in order");
  free(sets);
  cr_expect(!strcmp(command_text(c, "prompt", NULL), "-x"), "a value that begins with a dash");
  cr_expect(command_has(c, "json"), "a flag");
  int64_t top_k = 0;
  double top_p = 0;
  cr_expect(command_int(c, "top-k", 0, 10, &top_k).code == CODE_OK && top_k == 3, "an integer");
  cr_expect(command_real(c, "top-p", -1, 1, &top_p).code == CODE_OK && top_p == -0.5, "a number");
  line_free(&line);
  line_parse(&line, "model");
  cr_expect(!command_has(&line.command, "json") && !strcmp(command_text(&line.command, "prompt", "none"), "none"),
            "absent options keep their defaults");
  top_k = 7;
  cr_expect(command_int(&line.command, "top-k", 0, 10, &top_k).code == CODE_OK && top_k == 7, "an absent integer");
  cr_expect(command_all(&line.command, "set", &sets) == 0 && sets, "an absent list");
  free(sets);
  line_free(&line);
}

Test(command, what_the_table_lacks_is_refused) {
  const struct {
    const char *text, *message;
  } cases[] = {
      {"", "try: found 0 arguments, expected MODEL; usage: aspis try MODEL [OTHER] [options]"},
      {"a b c", "try: \"c\": one argument too many; usage: aspis try MODEL [OTHER] [options]"},
      {"a --promt x", "try: --promt: unknown option; did you mean \"--prompt\"?\n"
                      "try: --quite: unknown option; did you mean \"--quiet\"?"},
      {"a -x", "try: -x: unknown option; `aspis try --help` lists them"},
      {"a --json=3", "try: --json: found the value \"3\", expected none"},
      {"a --prompt", "try: --prompt: found no value, expected TEXT"},
      {"a --prompt --json", "try: --prompt: found no value, expected TEXT"},
      {"a --top-k 1 --top-k 2", "try: --top-k: given twice, expected once"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *text = base_format("%s%s", cases[i].text, strstr(cases[i].text, "promt") ? " --quite" : "");
    Line line;
    line_parse(&line, text);
    cr_assert(line.status.code == CODE_USAGE, "\"%s\": code %d", text, (int)line.status.code);
    cr_expect(!strcmp(line.status.line, cases[i].message), "\"%s\": %s", text, line.status.line);
    line_free(&line);
    free(text);
  }
}

Test(command, numbers_out_of_range_are_refused) {
  const char *const bad_ints[] = {"x", "1x", "-1", "11", "99999999999999999999", "1.5"};
  const char *const bad_reals[] = {"x", "nan", "-0.1", "1.01"};
  for (size_t i = 0; i < sizeof bad_ints / sizeof *bad_ints; i++) {
    char *text = base_format("m --top-k %s", bad_ints[i]);
    Line line;
    line_parse(&line, text);
    int64_t value = 5;
    Status status = command_int(&line.command, "top-k", 0, 10, &value);
    cr_expect(status.code == CODE_USAGE && value == 5, "%s as an integer", bad_ints[i]);
    status_clear(&status);
    line_free(&line);
    free(text);
  }
  for (size_t i = 0; i < sizeof bad_reals / sizeof *bad_reals; i++) {
    char *text = base_format("m --top-p %s", bad_reals[i]);
    Line line;
    line_parse(&line, text);
    double value = 5;
    Status status = command_real(&line.command, "top-p", 0, 1, &value);
    cr_expect(status.code == CODE_USAGE && value == 5, "%s as a number", bad_reals[i]);
    status_clear(&status);
    line_free(&line);
    free(text);
  }
}

Test(command, a_choice_is_one_of_its_names) {
  const char *const choices[] = {"f32", "bf16", NULL};
  Line line;
  int index = 0;
  line_parse(&line, "m --prompt bf16");
  cr_expect(command_choice(&line.command, "prompt", choices, &index).code == CODE_OK && index == 1, "bf16");
  line_free(&line);
  line_parse(&line, "m --prompt f64");
  Status status = command_choice(&line.command, "prompt", choices, &index);
  cr_assert(status.code == CODE_USAGE, "f64");
  cr_expect(!strcmp(status.line, "try: --prompt: found \"f64\", expected one of f32, bf16"), "%s", status.line);
  status_clear(&status);
  line_free(&line);
}

Test(command, help_needs_nothing_else_to_be_right) {
  Line line;
  line_parse(&line, "--nonsense a b c --help");
  cr_expect(line.status.code == CODE_OK && line.command.help, "%s", line.status.line);
  line_free(&line);
  line_parse(&line, "a -- --help");
  cr_expect(line.status.code == CODE_OK && !line.command.help, "--help behind -- is an argument");
  line_free(&line);
}

Test(command, distance_counts_slips) {
  const struct {
    const char *a, *b;
    int distance;
  } cases[] = {{"", "", 0},        {"abc", "abc", 0}, {"abc", "ab", 1},         {"abc", "acb", 1}, {"abc", "xbc", 1},
               {"abc", "abcd", 1}, {"", "abc", 3},    {"kitten", "sitting", 3}, {"ca", "abc", 3}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_expect(name_distance(cases[i].a, cases[i].b) == cases[i].distance, "%s to %s: %d", cases[i].a, cases[i].b,
              name_distance(cases[i].a, cases[i].b));
    cr_expect(name_distance(cases[i].b, cases[i].a) == cases[i].distance, "%s to %s", cases[i].b, cases[i].a);
  }
}

/* What the program says, stdout and stderr together (malloc'ed), and its exit code. */
static char *program(const char *arguments, int *code) {
  char *line = base_format("{ '%s' %s; } 2>&1", ASPIS_PROGRAM, arguments), *text = base_zalloc(1 << 16);
  FILE *pipe = popen(line, "r");
  cr_assert(pipe, "cannot run %s", line);
  size_t n = fread(text, 1, (1 << 16) - 1, pipe);
  text[n] = '\0';
  int status = pclose(pipe);
  *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  free(line);
  return text;
}

Test(command, the_program_answers_with_the_documented_codes) {
  const struct {
    const char *arguments;
    int code;
    const char *phrase;
  } cases[] = {
      {"--help", 0, "commands:\n  train "},
      {"--version", 0, "aspis "},
      {"", 2, "aspis: found no command"},
      {"trian", 2, "aspis: trian: unknown command; did you mean \"train\"?\n"},
      {"--hlep", 2, "aspis: --hlep: unknown option"},
      {"train --help", 0, "aspis train: "},
      {"help train", 0, "usage: aspis train CONFIG"},
      {"--quiet help eval", 0, "usage: aspis eval MODEL"},
      {"help config optim.lr", 0, "optim.lr: highest learning rate"},
      {"help config model.preset", 0, "mamba2-130m"},
      {"help config optim", 0, "optim.betas: "},
      {"help config optim.lrr", 2, "did you mean \"optim.lr\"?"},
      {"train", 2, "aspis: train: found 0 arguments, expected CONFIG"},
      {"train --rseume auto", 2, "did you mean \"--resume\"?"},
      {"train nowhere.yaml", 2, "aspis: nowhere.yaml: cannot be read: No such file or directory"},
      {"help config >/dev/full", 3, "aspis: standard output cannot be written"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int code;
    char *said = program(cases[i].arguments, &code);
    cr_expect(code == cases[i].code, "aspis %s: exit %d, expected %d:\n%s", cases[i].arguments, code, cases[i].code,
              said);
    cr_expect(strstr(said, cases[i].phrase), "aspis %s: no \"%s\" in:\n%s", cases[i].arguments, cases[i].phrase, said);
    cr_expect(!strchr(said, '\033'), "aspis %s: colour in a pipe", cases[i].arguments);
    free(said);
  }
}

Test(command, every_commands_help_begins_with_two_examples) {
  const char *const names[] = {
#define COMMAND(name) #name,
#include "train/cmd/commands.def"
#undef COMMAND
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    int code;
    char *arguments = base_format("%s --help", names[i]), *said = program(arguments, &code);
    char *example = base_format("aspis %s", names[i]);
    char *head = strstr(said, "\n\n"), *first = head ? strstr(head, example) : NULL;
    char *second = first ? strstr(first + 1, example) : NULL, *usage = strstr(said, "\nusage: ");
    cr_expect(code == 0, "%s: exit %d", arguments, code);
    cr_expect(second && usage && second < usage, "%s: two examples first:\n%s", arguments, said);
    free(arguments);
    free(said);
    free(example);
  }
}
