"""What do these results say of each claim, alone and all together (Holm 1979)?"""
