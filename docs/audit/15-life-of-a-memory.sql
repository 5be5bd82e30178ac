-- What happened to this memory, from first to last?
--
-- Said or imported, summed up, corrected, withdrawn, erased, and each answer that was given with it, with who asked for
-- it. Cut: the first 200, of all times.
--
--   .param set :memory "'6519153e-c0c8-4972-953d-c93e7e5c2a72'"
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  what              text                                          actor    request_id  correlation_id
--   2025-01-13T11:28:05.971823Z  said              Please remember about my cat: Miso eats not…  key:ann  req-ann-22  chatcmpl-6fe38ea7a5d14e24aea0d1ef1b020985
--   2025-01-13T11:28:05.971823Z  summary_failed    the chat endpoint gave an empty summary                            chatcmpl-6fe38ea7a5d14e24aea0d1ef1b020985
--   2025-01-22T03:01:39.684539Z  used as replayed  Please remember about my car: the winter ty…  key:ann  req-ann-34  chatcmpl-abee24bc1bca4549a67303d46323bcdc
--   2025-01-22T13:28:53.978096Z  used as replayed  Please remember about my thesis: chapter fo…  key:ann  req-ann-35  chatcmpl-2c04a4ebc57649f99578f4b928caf517
--   2025-01-22T13:28:53.978096Z  corrected         That was last year and no longer holds.       key:ann  req-ann-35
--   2025-01-23T10:26:03.736981Z  used as replayed  Please remember about my boat: the Alma lie…  key:ann  req-ann-36  chatcmpl-420dcab6566c427cb984e3d456cbeeee
--   2025-01-23T13:46:41.732163Z  used as summary   Please remember about my thesis: chapter fo…  key:ann  req-ann-37  chatcmpl-2513551dfd9c4c3cbc8169f91adb1407
--   2025-01-24T01:17:22.152448Z  used as summary   Please remember about my violin: the E stri…  key:ann  req-ann-38  chatcmpl-065aa600808747e590f4eeeb614f00ef
--   2025-01-26T17:40:59.510447Z  used as replayed  Please remember about my garden: the quince…  key:ann  req-ann-42  chatcmpl-62cf3c18aea54655ad47caed6b15f040
SELECT recorded_at, what, text, actor, request_id, correlation_id
FROM memory_history
WHERE memory_id = :memory
  AND user_id = (SELECT user_id FROM events WHERE event_id = :memory)
ORDER BY position, what
LIMIT 200;
