/* weights_pickle: a pytorch_model.bin: a zip of stored entries (weights_zip.h), of which data.pkl is a pickle that describes tensors and data/<key>
 * are their storages. (PyTorch, torch/serialization.py; Python, pickletools.py.)
 *
 * A pickle is a program. This reader knows the few opcodes that a dictionary of tensors needs and three names to be called,
 * calls nothing, and refuses the rest with its opcode and place. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights_file.h"
#include "models/weights_zip.h"

enum { MAX_PICKLE_BYTES = 64 << 20 };

/* ---- the pickle's values */

typedef enum ValueKind {
  VALUE_NONE,
  VALUE_MARK,
  VALUE_INT, /* booleans too */
  VALUE_TEXT,
  VALUE_NAME,    /* something to be called: `number` is a Name */
  VALUE_TUPLE,   /* n items from `first` on */
  VALUE_DICT,    /* pairs are kept apart, with its number */
  VALUE_STORAGE, /* number: its FileType; text: its key; n: its elements */
  VALUE_TENSOR   /* number: of a FileTensor-to-be */
} ValueKind;

typedef enum Name { NAME_ORDERED_DICT, NAME_REBUILD, NAME_STORAGE } Name;
static const struct {
  const char *module, *name;
  Name kind;
  FileType type;
} NAMES[] = {
    {"collections", "OrderedDict", NAME_ORDERED_DICT, 0},  {"torch._utils", "_rebuild_tensor_v2", NAME_REBUILD, 0},
    {"torch", "FloatStorage", NAME_STORAGE, FILE_F32},     {"torch", "HalfStorage", NAME_STORAGE, FILE_F16},
    {"torch", "BFloat16Storage", NAME_STORAGE, FILE_BF16},
};

typedef struct Value {
  ValueKind kind;
  int64_t number;
  const char *text; /* in the pickle, n bytes */
  size_t first, n;
} Value;

typedef struct Values {
  Value *value;
  size_t n, capacity;
} Values;

typedef struct Pair {
  int64_t dict;
  Value key, value;
} Pair;

typedef struct Unpickler {
  WeightsFile *file;
  const Zip *zip;
  const unsigned char *code;
  size_t n, at, op_at;
  Values stack, memo, items;
  Pair *pair;
  size_t n_pairs, pair_capacity;
  FileTensor *tensor;
  size_t n_tensors, tensor_capacity;
  int64_t n_dicts;
} Unpickler;

static void values_put(Values *values, Value value) {
  if (values->n == values->capacity) {
    values->capacity = values->capacity ? 2 * values->capacity : 256;
    values->value = base_realloc(values->value, values->capacity * sizeof *values->value);
  }
  values->value[values->n++] = value;
}

static Status bad_pickle(const Unpickler *u, const char *problem) {
  return status_fail(CODE_CHECKPOINT, "%s: data.pkl: opcode 0x%02X at byte %zu: %s", u->zip->path, u->code[u->op_at],
                     u->op_at, problem);
}

#define NEED(condition, problem)                                                                                       \
  do {                                                                                                                 \
    if (!(condition)) return bad_pickle(u, problem);                                                                   \
  } while (0)

static const char STACK[] = "found other values than a dictionary of tensors is made of";

static Status pop(Unpickler *u, Value *value) {
  NEED(u->stack.n > 0, STACK);
  *value = u->stack.value[--u->stack.n];
  NEED(value->kind != VALUE_MARK, STACK);
  return STATUS_OK;
}

/* The place of the last mark. */
static Status find_mark(Unpickler *u, size_t *mark) {
  for (*mark = u->stack.n; *mark > 0 && u->stack.value[*mark - 1].kind != VALUE_MARK; --*mark) continue;
  NEED(*mark > 0, STACK);
  --*mark;
  return STATUS_OK;
}

static Status push_tuple(Unpickler *u, size_t from, size_t pop_to) {
  const Value tuple = {.kind = VALUE_TUPLE, .first = u->items.n, .n = u->stack.n - from};
  for (size_t i = from; i < u->stack.n; i++) {
    NEED(u->stack.value[i].kind != VALUE_MARK, STACK);
    values_put(&u->items, u->stack.value[i]);
  }
  u->stack.n = pop_to;
  values_put(&u->stack, tuple);
  return STATUS_OK;
}

static const Value *item(const Unpickler *u, const Value *tuple, size_t i) { return &u->items.value[tuple->first + i]; }

/* ---- opcodes: the argument has been read; `argument` is its number, `text` and `n` its bytes */

typedef struct Argument {
  int64_t number;
  const char *text;
  size_t n;
} Argument;

static Status op_nothing(Unpickler *u, Argument argument) {
  (void)u, (void)argument;
  return STATUS_OK;
}

static Status op_protocol(Unpickler *u, Argument argument) {
  NEED(argument.number == 2 && u->op_at == 0, "found another protocol than 2, which torch.save writes");
  return STATUS_OK;
}

static Status op_none(Unpickler *u, Argument argument) {
  (void)argument;
  values_put(&u->stack, (Value){.kind = VALUE_NONE});
  return STATUS_OK;
}

static Status op_mark(Unpickler *u, Argument argument) {
  (void)argument;
  values_put(&u->stack, (Value){.kind = VALUE_MARK});
  return STATUS_OK;
}

static Status op_int(Unpickler *u, Argument argument) {
  values_put(&u->stack, (Value){.kind = VALUE_INT, .number = argument.number});
  return STATUS_OK;
}

static Status op_true(Unpickler *u, Argument argument) {
  (void)argument;
  return op_int(u, (Argument){.number = 1});
}

static Status op_text(Unpickler *u, Argument argument) {
  values_put(&u->stack, (Value){.kind = VALUE_TEXT, .text = argument.text, .n = argument.n});
  return STATUS_OK;
}

static Status op_dict(Unpickler *u, Argument argument) {
  (void)argument;
  values_put(&u->stack, (Value){.kind = VALUE_DICT, .number = u->n_dicts++});
  return STATUS_OK;
}

static Status op_empty_tuple(Unpickler *u, Argument argument) {
  (void)argument;
  return push_tuple(u, u->stack.n, u->stack.n);
}

static Status op_tuple(Unpickler *u, Argument argument) {
  (void)argument;
  size_t mark;
  TRY(find_mark(u, &mark));
  return push_tuple(u, mark + 1, mark);
}

static Status op_tuple_few(Unpickler *u, Argument argument) {
  (void)argument;
  const size_t n = (size_t)(u->code[u->op_at] - 0x84);
  NEED(u->stack.n >= n, STACK);
  return push_tuple(u, u->stack.n - n, u->stack.n - n);
}

static Status op_put(Unpickler *u, Argument argument) {
  NEED(u->stack.n > 0 && argument.number <= (int64_t)u->n, STACK);
  while ((int64_t)u->memo.n <= argument.number) values_put(&u->memo, (Value){.kind = VALUE_MARK});
  u->memo.value[argument.number] = u->stack.value[u->stack.n - 1];
  return STATUS_OK;
}

static Status op_get(Unpickler *u, Argument argument) {
  NEED(argument.number < (int64_t)u->memo.n && u->memo.value[argument.number].kind != VALUE_MARK, STACK);
  values_put(&u->stack, u->memo.value[argument.number]);
  return STATUS_OK;
}

/* "module\nname\n" */
static Status op_global(Unpickler *u, Argument argument) {
  const char *split = memchr(argument.text, '\n', argument.n);
  const size_t n_module = (size_t)(split - argument.text), n_name = argument.n - n_module - 1;
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
    if (strlen(NAMES[i].module) == n_module && memcmp(NAMES[i].module, argument.text, n_module) == 0 &&
        strlen(NAMES[i].name) == n_name && memcmp(NAMES[i].name, split + 1, n_name) == 0) {
      values_put(&u->stack, (Value){.kind = VALUE_NAME, .number = (int64_t)i});
      return STATUS_OK;
    }
  char named[80];
  size_t n = 0;
  for (size_t i = 0; i < argument.n && n + 1 < sizeof named; i++) {
    const unsigned char c = (unsigned char)argument.text[i];
    named[n++] = c == '\n' ? '.' : c > 32 && c < 127 ? (char)c : '?';
  }
  named[n] = '\0';
  char problem[160];
  snprintf(problem, sizeof problem, "it names %s, which a file of tensors does not need; it was not called", named);
  return bad_pickle(u, problem);
}

/* ("storage", <a storage's name>, key, device, elements) */
static Status op_persistent(Unpickler *u, Argument argument) {
  (void)argument;
  Value tuple;
  TRY(pop(u, &tuple));
  NEED(tuple.kind == VALUE_TUPLE && tuple.n == 5, STACK);
  const Value *word = item(u, &tuple, 0), *name = item(u, &tuple, 1), *key = item(u, &tuple, 2),
              *n = item(u, &tuple, 4);
  NEED(word->kind == VALUE_TEXT && word->n == 7 && memcmp(word->text, "storage", 7) == 0 && name->kind == VALUE_NAME &&
           NAMES[name->number].kind == NAME_STORAGE && key->kind == VALUE_TEXT && key->n < 64 && n->kind == VALUE_INT &&
           n->number >= 0,
       STACK);
  values_put(&u->stack, (Value){.kind = VALUE_STORAGE,
                                .number = NAMES[name->number].type,
                                .text = key->text,
                                .n = key->n,
                                .first = (size_t)n->number});
  return STATUS_OK;
}

/* (storage, offset, sizes, strides, requires_grad, hooks) */
static Status rebuild(Unpickler *u, const Value *arguments) {
  NEED(arguments->n >= 6 && arguments->n <= 7, STACK);
  const Value *storage = item(u, arguments, 0), *offset = item(u, arguments, 1), *sizes = item(u, arguments, 2),
              *strides = item(u, arguments, 3);
  NEED(storage->kind == VALUE_STORAGE && offset->kind == VALUE_INT && offset->number >= 0 &&
           sizes->kind == VALUE_TUPLE && strides->kind == VALUE_TUPLE && sizes->n == strides->n &&
           sizes->n <= FILE_MAX_DIM,
       STACK);
  FileTensor tensor = {.type = (FileType)storage->number, .n_dim = (int)sizes->n};
  int64_t count = 1;
  for (int i = tensor.n_dim - 1; i >= 0; i--) {
    const Value *size = item(u, sizes, (size_t)i), *stride = item(u, strides, (size_t)i);
    NEED(size->kind == VALUE_INT && stride->kind == VALUE_INT && size->number >= 0, STACK);
    NEED(size->number <= 1 || stride->number == count,
         "found a tensor that does not lie row by row; save it .contiguous()");
    NEED(!__builtin_mul_overflow(count, size->number, &count), "found sizes that overflow");
    tensor.dim[i] = size->number;
  }
  char *name = base_format("data/%.*s", (int)storage->n, storage->text);
  const ZipEntry *entry = zip_find(u->zip, name);
  free(name);
  const int64_t width = file_type_bytes(tensor.type), room = entry ? (int64_t)(entry->bytes / (uint64_t)width) : 0;
  NEED(entry && (int64_t)storage->first == room && entry->bytes % (uint64_t)width == 0,
       "found a storage that the zip does not hold in this size");
  NEED(offset->number <= room && count <= room - offset->number, "found a tensor that is larger than its storage");
  tensor.data = entry->data + offset->number * width, tensor.bytes = count * width;
  if (u->n_tensors == u->tensor_capacity) {
    u->tensor_capacity = u->tensor_capacity ? 2 * u->tensor_capacity : 64;
    u->tensor = base_realloc(u->tensor, u->tensor_capacity * sizeof *u->tensor);
  }
  u->tensor[u->n_tensors] = tensor;
  values_put(&u->stack, (Value){.kind = VALUE_TENSOR, .number = (int64_t)u->n_tensors++});
  return STATUS_OK;
}

static Status op_reduce(Unpickler *u, Argument argument) {
  Value arguments, name;
  TRY(pop(u, &arguments));
  TRY(pop(u, &name));
  NEED(name.kind == VALUE_NAME && arguments.kind == VALUE_TUPLE, STACK);
  if (NAMES[name.number].kind == NAME_REBUILD) return rebuild(u, &arguments);
  NEED(NAMES[name.number].kind == NAME_ORDERED_DICT && arguments.n == 0, STACK);
  return op_dict(u, argument);
}

static Status put_pair(Unpickler *u, const Value *dict, Value key, Value value) {
  NEED(dict->kind == VALUE_DICT && key.kind != VALUE_MARK && value.kind != VALUE_MARK, STACK);
  if (u->n_pairs == u->pair_capacity) {
    u->pair_capacity = u->pair_capacity ? 2 * u->pair_capacity : 256;
    u->pair = base_realloc(u->pair, u->pair_capacity * sizeof *u->pair);
  }
  u->pair[u->n_pairs++] = (Pair){dict->number, key, value};
  return STATUS_OK;
}

static Status op_set_item(Unpickler *u, Argument argument) {
  (void)argument;
  NEED(u->stack.n >= 3, STACK);
  u->stack.n -= 2;
  const Value *top = &u->stack.value[u->stack.n - 1];
  return put_pair(u, top, top[1], top[2]);
}

static Status op_set_items(Unpickler *u, Argument argument) {
  (void)argument;
  size_t mark;
  TRY(find_mark(u, &mark));
  NEED(mark > 0 && (u->stack.n - mark - 1) % 2 == 0, STACK);
  for (size_t i = mark + 1; i < u->stack.n; i += 2)
    TRY(put_pair(u, &u->stack.value[mark - 1], u->stack.value[i], u->stack.value[i + 1]));
  u->stack.n = mark;
  return STATUS_OK;
}

/* An OrderedDict's attributes: its _metadata, which says nothing of tensors. */
static Status op_build(Unpickler *u, Argument argument) {
  (void)argument;
  Value state;
  TRY(pop(u, &state));
  NEED(u->stack.n > 0 && u->stack.value[u->stack.n - 1].kind == VALUE_DICT && state.kind == VALUE_DICT, STACK);
  return STATUS_OK;
}

typedef enum ArgumentKind { ARG_NONE, ARG_U8, ARG_U16, ARG_I32, ARG_LONG1, ARG_TEXT, ARG_TWO_LINES } ArgumentKind;
static const struct {
  unsigned char code;
  ArgumentKind argument;
  Status (*run)(Unpickler *u, Argument argument);
} OPCODES[] = {
    {0x80, ARG_U8, op_protocol},     {'}', ARG_NONE, op_dict},       {'(', ARG_NONE, op_mark},
    {'q', ARG_U8, op_put},           {'r', ARG_I32, op_put},         {'h', ARG_U8, op_get},
    {'j', ARG_I32, op_get},          {'X', ARG_TEXT, op_text},       {'c', ARG_TWO_LINES, op_global},
    {')', ARG_NONE, op_empty_tuple}, {'t', ARG_NONE, op_tuple},      {0x85, ARG_NONE, op_tuple_few},
    {0x86, ARG_NONE, op_tuple_few},  {0x87, ARG_NONE, op_tuple_few}, {'K', ARG_U8, op_int},
    {'M', ARG_U16, op_int},          {'J', ARG_I32, op_int},         {0x8A, ARG_LONG1, op_int},
    {0x88, ARG_NONE, op_true},       {0x89, ARG_NONE, op_int},       {'N', ARG_NONE, op_none},
    {'Q', ARG_NONE, op_persistent},  {'R', ARG_NONE, op_reduce},     {'s', ARG_NONE, op_set_item},
    {'u', ARG_NONE, op_set_items},   {'b', ARG_NONE, op_build},      {'.', ARG_NONE, op_nothing},
};

static bool take(Unpickler *u, size_t n, const unsigned char **at) {
  *at = u->code + u->at;
  if (n > u->n - u->at) return false;
  u->at += n;
  return true;
}

static Status read_argument(Unpickler *u, ArgumentKind kind, Argument *argument) {
  static const char END[] = "the pickle ends in the middle of it";
  const unsigned char *at;
  *argument = (Argument){0};
  switch (kind) {
  case ARG_NONE: return STATUS_OK;
  case ARG_U8:
  case ARG_U16:
    NEED(take(u, kind == ARG_U8 ? 1 : 2, &at), END);
    argument->number = (int64_t)little(at, kind == ARG_U8 ? 1 : 2);
    return STATUS_OK;
  case ARG_I32:
    NEED(take(u, 4, &at), END);
    argument->number = (int32_t)(uint32_t)little(at, 4);
    NEED(argument->number >= 0 || u->code[u->op_at] == 'J', STACK);
    return STATUS_OK;
  case ARG_LONG1:
    NEED(take(u, 1, &at), END);
    argument->n = *at;
    NEED(argument->n <= 8 && take(u, argument->n, &at), "found an integer of more than 64 bits");
    argument->number = (int64_t)little(at, (int)argument->n);
    if (argument->n > 0 && argument->n < 8 && (at[argument->n - 1] & 0x80))
      argument->number -= (int64_t)1 << 8 * argument->n;
    return STATUS_OK;
  case ARG_TEXT:
    NEED(take(u, 4, &at), END);
    argument->n = (size_t)little(at, 4);
    NEED(take(u, argument->n, &at), END);
    argument->text = (const char *)at;
    return STATUS_OK;
  case ARG_TWO_LINES: break;
  }
  const unsigned char *first = memchr(u->code + u->at, '\n', u->n - u->at);
  const unsigned char *second = first ? memchr(first + 1, '\n', u->n - (size_t)(first + 1 - u->code)) : NULL;
  NEED(second, END);
  argument->text = (const char *)u->code + u->at, argument->n = (size_t)(second - u->code) - u->at;
  u->at = (size_t)(second + 1 - u->code);
  return STATUS_OK;
}

static Status unpickle(Unpickler *u) {
  for (;;) {
    if (u->at == u->n) return status_fail(CODE_CHECKPOINT, "%s: data.pkl: it ends without a STOP", u->zip->path);
    u->op_at = u->at++;
    size_t i = 0;
    while (i < sizeof OPCODES / sizeof *OPCODES && OPCODES[i].code != u->code[u->op_at]) i++;
    NEED(i < sizeof OPCODES / sizeof *OPCODES, "a file of tensors does not need it; nothing was executed");
    Argument argument;
    TRY(read_argument(u, OPCODES[i].argument, &argument));
    TRY(OPCODES[i].run(u, argument));
    if (u->code[u->op_at] == '.') break;
  }
  NEED(u->stack.n == 1 && u->stack.value[0].kind == VALUE_DICT, "the file is not a dictionary of tensors");
  for (size_t i = 0; i < u->n_pairs; i++) {
    const Pair *pair = &u->pair[i];
    if (pair->dict != u->stack.value[0].number) continue;
    NEED(pair->key.kind == VALUE_TEXT && pair->value.kind == VALUE_TENSOR && pair->key.n > 0,
         "the file is not a dictionary of tensors");
    char *name = base_format("%.*s", (int)pair->key.n, pair->key.text);
    bool plain = strlen(name) == pair->key.n;
    for (const char *c = name; *c; c++) plain &= *c > 32 && *c < 127;
    FileTensor *tensor = weights_file_add(u->file, name);
    free(name);
    name = tensor->name;
    *tensor = u->tensor[pair->value.number];
    tensor->name = name;
    NEED(plain, "found a strange name of a tensor");
  }
  return STATUS_OK;
}

static Status read_zip(WeightsFile *file, Zip *zip) {
  TRY(zip_read(zip));
  const ZipEntry *pickle = zip_find(zip, "data.pkl"), *order = zip_find(zip, "byteorder");
  if (!pickle || pickle->bytes == 0 || pickle->bytes > MAX_PICKLE_BYTES)
    return zip_refuse(zip, "no data.pkl of at most 64 MiB");
  if (order && (order->bytes != 6 || memcmp(order->data, "little", 6) != 0))
    return zip_refuse(zip, "another byte order than little");
  Unpickler u = {.file = file, .zip = zip, .code = pickle->data, .n = pickle->bytes};
  Status status = unpickle(&u);
  free(u.stack.value), free(u.memo.value), free(u.items.value), free(u.pair), free(u.tensor);
  return status;
}

Status pickle_read(WeightsFile *file, const char *path) {
  const Mapped *map;
  TRY(weights_file_map(file, path, &map));
  Zip zip = {.path = path, .bytes = map->data, .n = map->bytes};
  Status status = read_zip(file, &zip);
  free(zip.entry);
  return status;
}
