"""Three designs of multimodal attention are three masks on one joint sequence."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend, masked_softmax

if __name__ == "__main__":
    # --8<-- [start:blocks]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, S, J = 4, 9, 13  # 4 text tokens and 9 image patches: 13 in one sequence
    q_11JK, k_11JK, v_11JK = torch.randn(3, 1, 1, J, 16, dtype=torch.float64)
    other_k_11JK, other_v_11JK = k_11JK.clone(), v_11JK.clone()
    other_k_11JK[:, :, T:] += 1  # another image
    other_v_11JK[:, :, T:] += 1
    text_J = torch.arange(J) < T
    same_JJ = text_J.unsqueeze(1) == text_J
    masks = {"joint": same_JJ | True, "co-attention": ~same_JJ, "two towers": same_JJ}
    print("design         text→text text→image image→text image→image  text sees image")
    for name, mask_JJ in masks.items():
        mask_11JJ = mask_JJ.expand(1, 1, J, J)
        weight_11JJ = masked_softmax(q_11JK @ k_11JK.mT / 4, mask_11JJ)
        to_text_J = weight_11JJ[0, 0, :, :T].sum(1)
        masses = [to_text_J[:T].mean(), 1 - to_text_J[:T].mean()]
        masses += [to_text_J[T:].mean(), 1 - to_text_J[T:].mean()]
        out_11JK = attend(q_11JK, k_11JK, v_11JK, mask_11JJ)
        other_11JK = attend(q_11JK, other_k_11JK, other_v_11JK, mask_11JJ)
        sees = not out_11JK[:, :, :T].equal(other_11JK[:, :, :T])
        print(f"{name:12}", *(f"{mass:10.3f}" for mass in masses), f"{sees!s:>15}")
        assert sees == (name != "two towers")
    # --8<-- [end:blocks]

    # --8<-- [start:mixture]
    q_11TK = q_11JK[:, :, :T]
    joint_11TK = attend(q_11TK, k_11JK, v_11JK)
    self_11TK = attend(q_11TK, k_11JK[:, :, :T], v_11JK[:, :, :T])
    cross_11TK = attend(q_11TK, k_11JK[:, :, T:], v_11JK[:, :, T:])
    weight_11TJ = torch.softmax(q_11TK @ k_11JK.mT / 4, dim=-1)
    share_11T1 = weight_11TJ[..., T:].sum(-1, keepdim=True)
    mixed_11TK = (1 - share_11T1) * self_11TK + share_11T1 * cross_11TK
    torch.testing.assert_close(joint_11TK, mixed_11TK)
    print(f"joint = mixture, up to {(joint_11TK - mixed_11TK).abs().max():.0e}")
    print("share of the image:", [f"{x:.2f}" for x in share_11T1.flatten().tolist()])
    # --8<-- [end:mixture]

    # --8<-- [start:missing]
    no_image_11TJ = text_J.expand(1, 1, T, J)
    k_11JK[:, :, T:] = v_11JK[:, :, T:] = float("nan")  # no image: anything may be here
    alone_11TK = attend(q_11TK, k_11JK, v_11JK, no_image_11TJ)
    torch.testing.assert_close(alone_11TK, self_11TK)
    print(f"image masked, text-only: {(alone_11TK - self_11TK).abs().max():.0e} apart")
    # --8<-- [end:missing]
