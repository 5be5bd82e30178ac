-- Which memories of this user are never used?
--
-- Neither replayed nor shown as a summary nor as a neighbour, in any answer so far. That the recent window showed a turn
-- is no use of it as a memory. The oldest first; forgotten ones are left out.
--
--   .param set :user "'ann'"
--
-- Answer, of the small synthetic ledger:
--
--   memory_id                             ts                           conversation_id  they_said                                     summary
--   4bb4239a-52ad-48bf-8291-1d413f933f25  2025-01-13T05:21:55.761712Z  talk 1           Please remember about my thesis: chapter fo…  About the thesis: chapter four still lacks …
--   7ddae6b0-07ca-4c38-96e2-c4997a2c40e8  2025-01-17T01:27:00.754169Z  talk 1           What do you know about my flat?               About the flat: the lease of the flat ends …
--   d186d085-4fde-4912-b91b-491226f92d75  2025-01-18T04:30:04.439862Z  talk 1           Please remember about my sister: Ruth moved…  About the sister: Ruth moved to Porto.
--   934e08cd-48e7-4412-b0cf-53ed6ade1a01  2025-01-20T04:51:15.656009Z  talk 1           Please remember about my sister: Ruth moved…  About the sister: Ruth moved to Porto.
--   086f2304-ed5b-4e62-aca1-6b00a5ca645f  2025-01-20T16:26:35.046531Z  talk 1           Please remember about my bread: the starter…  About the bread: the starter wants rye, fed…
--   4b78c662-c226-4b84-8d98-87f0c695e6f3  2025-01-21T00:49:52.362285Z  talk 1           Please remember about my flat: the lease of…  About the flat: the lease of the flat ends …
--   a74701a8-8409-43ad-b290-05cf663bca7f  2025-01-21T20:21:37.897291Z  talk 1           What do you know about my sister?             About the sister: Ruth moved to Porto.
--   59e3ada5-3ff5-4018-9c72-2209f698ba9e  2025-01-22T06:30:35.518449Z  talk 1           Please remember about my garden: the quince…  About the garden: the quince is to be cut b…
--   b6ed9257-b389-4d22-b75a-8795b440a02a  2025-01-23T17:36:56.465742Z  talk 2           Please remember about my bread: the starter…  About the bread: the starter wants rye, fed…
--   3de55c60-3abe-4ad5-adee-e875480ea43a  2025-01-23T23:46:08.572805Z  talk 2           What do you know about my flat? It was said…  About the flat: the lease of the flat ends …
--   ... 15 rows in all
SELECT
    memories.memory_id,
    memories.ts,
    memories.conversation_id,
    memories.user AS they_said,
    memories.summary
FROM memories
WHERE memories.user_id = :user
  AND NOT memories.forgotten
  AND memories.memory_id NOT IN (
        SELECT memory_id FROM memory_uses WHERE user_id = :user AND role <> 'window')
ORDER BY memories.position
LIMIT 200;
