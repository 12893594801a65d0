/* What the command sets of ATA devices share: see ata.h. Document: [ACS-3]. Under the adapter's lock. */
#include "dev/ata/ata.h"

#include <string.h>

#define PAGE_LEN 512

void ata_text(u8 *word, const char *text, unsigned len)
{
	size_t n = strlen(text);

	for (unsigned i = 0; i < len; i++)
		word[i ^ 1] = i < n ? (u8)text[i] : ' ';
}

enum ata_next ata_fail(struct ata_cmd *cmd, u8 error)
{
	cmd->status |= ATA_ERR;
	cmd->error = error;
	return ATA_END;
}

void ata_checksum(u8 *page)
{
	u8 sum = 0;

	for (unsigned i = 0; i < PAGE_LEN - 1; i++)
		sum = (u8)(sum + page[i]);
	page[PAGE_LEN - 1] = (u8)-sum;
}
