/* The folders of a test of shared folders: "share", which is served, beside "outside", which no request may reach. Included after
 * cmocka.h, once.
 */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char base[64]; /* has both */

static const char *host(const char *name)
{
	static __thread char path[4][512];
	static __thread unsigned i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", base, name);
	return path[i];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(host(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void has(const char *name, const char *text)
{
	char got[256] = "";
	FILE *f = fopen(host(name), "r");

	assert_non_null(f);
	got[fread(got, 1, sizeof(got) - 1, f)] = 0;
	fclose(f);
	assert_string_equal(got, text);
}

static void make_folders(void)
{
	strcpy(base, "/tmp/test-fuse.XXXXXX");
	assert_non_null(mkdtemp(base));
	assert_int_equal(mkdir(host("share"), 0755), 0);
	assert_int_equal(mkdir(host("outside"), 0755), 0);
	chmod(host("share"), 0755);
	put("outside/secret", "secret");
}

/* What is outside is as it was. */
static int remove_folders(void)
{
	char command[128];
	DIR *d = opendir(host("outside"));
	unsigned n = 0;

	has("outside/secret", "secret");
	while (readdir(d))
		n++;
	closedir(d);
	assert_int_equal(n, 3);
	snprintf(command, sizeof(command), "rm -rf %s", base);
	return system(command);
}
