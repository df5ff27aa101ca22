#pragma once
#include <http_parser.h>
#include <string.h>

// What http-parser makes of one request head: its error (0 for none), whether the head was complete.
struct andiron_verdict { int error; int complete; int chunked; unsigned long long length; };
static inline int andiron_on_headers(http_parser *parser) {
    struct andiron_verdict *verdict = (struct andiron_verdict *)parser->data;
    verdict->complete = 1;
    verdict->chunked = (parser->flags & F_CHUNKED) != 0;
    verdict->length = parser->content_length;
    return 2; /* no body, and stop */
}
static inline struct andiron_verdict andiron_judge(const char *bytes, size_t count) {
    struct andiron_verdict verdict = {0, 0, 0, 0};
    http_parser parser;
    http_parser_settings settings;
    http_parser_settings_init(&settings);
    settings.on_headers_complete = andiron_on_headers;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &verdict;
    http_parser_execute(&parser, &settings, bytes, count);
    verdict.error = HTTP_PARSER_ERRNO(&parser);
    return verdict;
}
