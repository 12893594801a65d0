/* bothy doctor: what this host offers, and what each missing thing costs. */
#pragma once

#include "cli/command.h"

extern const struct command doctor_command;
