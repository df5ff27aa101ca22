#pragma once
#include <yaml.h>

// The event's payload is a C union inside a struct; these read the two members needed.
static inline const unsigned char *andiron_scalar(const yaml_event_t *event, size_t *length) {
    *length = event->data.scalar.length;
    return event->data.scalar.value;
}
static inline int andiron_scalar_is_plain(const yaml_event_t *event) { return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE; }
