-- Which memories of this user are never used?
--
-- Neither replayed nor shown as a summary nor as a neighbour, in any answer so far. That the recent window showed a turn
-- is no use of it as a memory. The oldest first; forgotten and superseded ones are left out. Cut: the first 200, of all times.
--
--   .param set :user "'ann'"
--
-- Answer, of the small synthetic ledger:
--
--   memory_id                             ts                           conversation_id  they_said                                     summary
--   fd22bb42-2252-4dbd-a43e-7740604d45f2  2023-11-28T08:00:00Z         earlier          Please remember about my thesis: chapter fo…
--   af15f5ec-cb4d-4534-b50b-47a52ed510d6  2025-01-23T10:26:03.736981Z  talk 1           Please remember about my boat: the Alma lie…  About the boat: the Alma lies at pier seven.
--   db73542b-1ec8-4b1f-9319-d8b54795ea32  2025-01-24T23:00:01.545014Z  talk 2           What do you know about my car? It was said …  About the car: the winter tyres are in the …
--   8e96a2b5-7d46-4422-9ad4-e92969d27986  2025-01-26T12:29:24.609897Z  talk 2           What do you know about my garden? It was sa…  About the garden: the quince is to be cut b…
--   18a4c13e-802b-4663-b202-6f4be0545f00  2025-01-26T17:40:59.510447Z  talk 2           Please remember about my garden: the quince…  About the garden: the quince is to be cut b…
--   e6f3a4e1-af94-496f-a0b9-6ddf1fc74641  2025-01-26T21:43:30.277463Z  talk 2           What do you know about my thesis? It was sa…  About the thesis: chapter four still lacks …
--   2ea1a5d7-122e-4fc9-95c2-e74a3c0e0cc7  2025-01-27T09:28:49.847525Z  talk 2           Please remember about my cat: Miso eats not…  About the cat: Miso eats nothing but tuna.
--   38e2a75b-f7ee-404a-970b-c4b8e494597f  2025-01-28T05:41:34.471656Z  talk 2           What do you know about my knee? It was said…  About the knee: the left knee must not run …
--   1489550e-6bbf-49fc-b1e3-b36434662f8d  2025-01-29T05:21:16.523974Z  talk 2           What do you know about my sister? It was sa…  About the sister: Ruth moved to Porto.
--   13844a14-97ad-44b9-8161-304ec8470aa3  2025-01-29T20:45:04.743715Z  talk 2           Please remember about my cat: Miso eats not…  About the cat: Miso eats nothing but tuna.
SELECT
    memories.memory_id,
    memories.ts,
    memories.conversation_id,
    memories.user AS they_said,
    memories.summary
FROM memories
WHERE memories.user_id = :user
  AND NOT memories.forgotten
  AND NOT memories.superseded
  AND memories.memory_id NOT IN (
        SELECT memory_id FROM memory_uses WHERE user_id = :user AND role <> 'window')
ORDER BY memories.position
LIMIT 200;
