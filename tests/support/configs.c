/* configs: see configs.h. */
#include "tests/support/configs.h"

#include <criterion/criterion.h>
#include <string.h>

void assert_files_refused(const RefusedFile *files, int n) {
  for (int i = 0; i < n; i++) {
    Config config;
    Status status = config_load(files[i].path, NULL, 0, &config);
    cr_assert(status.code == CODE_USAGE, "%s: code %d", files[i].path, (int)status.code);
    cr_expect(!strcmp(status.line, files[i].message), "%s: %s", files[i].path, status.line);
    status_clear(&status);
  }
}
